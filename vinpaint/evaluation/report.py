# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: a page with the tables, plots, contact sheets and definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from vinpaint.errors import InputError
from vinpaint.evaluation.conditions import MOTIONS, SEEN
from vinpaint.evaluation.holes import HOLES
from vinpaint.evaluation.methods import DESCRIPTIONS, TRUTH
from vinpaint.evaluation.metrics import METRICS
from vinpaint.evaluation.results import Results, arrow, number
from vinpaint.evaluation.run import sheet_path

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise InputError(
        "the report needs matplotlib, which is not installed; expected: pip install matplotlib"
    ) from error

PAGE = "index.html"

_WIDTH = 10.5


def write_report(results: Results, output: str | Path) -> Path:
    """Write ``index.html`` and its plots into the folder of :func:`vinpaint.evaluation.run.evaluate`.

    Returns:
        The page. It refers to the plots and contact sheets beside it by relative addresses.
    """
    output = Path(output)
    (output / "plots").mkdir(parents=True, exist_ok=True)
    for hole in _plotted(results):
        _bars(results, hole).savefig(output / _bars_path(hole), dpi=110)
        _lines(results, hole).savefig(output / _lines_path(hole), dpi=110)
    page = output / PAGE
    page.write_text(_page(results, output), encoding="utf-8")
    return page


def _plotted(results: Results) -> list[str]:
    """The kinds of hole that some method beside the truth has filled."""
    filled = {score.hole for score in results.scores if score.method != TRUTH}
    return [hole for hole in results.holes if hole in filled]


def _bars_path(hole: str) -> Path:
    return Path("plots", f"{hole}-means.png")


def _lines_path(hole: str) -> Path:
    return Path("plots", f"{hole}-clips.png")


def _bars(results: Results, hole: str) -> Figure:
    """A panel a metric, a bar a method; the truth's own value as a dashed line where it is on the scale."""
    metrics, methods = results.metrics(hole), [m for m in results.methods if m != TRUTH]
    figure, panels = _panels(len(metrics), columns=3, height=0.75 + 0.3 * len(methods))
    for index, (panel, metric) in enumerate(zip(panels, metrics, strict=True)):
        values = [results.mean(hole, method).get(metric, math.nan) for method in methods]
        bars = panel.barh(methods, values, color=[_color(results, m) for m in methods], height=0.7)
        labels = panel.bar_label(
            bars,
            ["" if math.isnan(v) else number(metric, v) for v in values],
            padding=3,
            fontsize=8,
        )
        for label in labels:
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
        panel.margins(x=0.22)
        panel.invert_yaxis()
        panel.tick_params("y", length=0, labelleft=index % 3 == 0)
        _dress(panel, metric)
        truth = results.mean(hole, TRUTH).get(metric, 0)
        if 0 < truth <= max((v for v in values if not math.isnan(v)), default=0):
            panel.axvline(truth, color="0.35", linestyle="--", linewidth=1)
            shown = f"{panel.get_xlabel()}; dashed: the truth, {number(metric, truth)}"
            panel.set_xlabel(shown, fontsize=8)
    return figure


def _lines(results: Results, hole: str) -> Figure:
    """A panel a metric, a line a method over the clips."""
    found = {m: results.of(hole, m) for m in results.methods if m != TRUTH}
    metrics = [
        name
        for name in results.metrics(hole)
        if any(name in score.values for scores in found.values() for score in scores.values())
    ]
    many = len(results.clips) > 12
    columns = 1 if many else 3
    longest = max(len(clip) for clip in results.clips)
    figure, panels = _panels(len(metrics), columns, height=1.7 + 0.075 * longest, legend=0.35)
    places = range(len(results.clips))
    for panel, metric in zip(panels, metrics, strict=True):
        for method, scores in found.items():
            values = [
                scores[clip].values.get(metric, math.nan) if clip in scores else math.nan
                for clip in results.clips
            ]
            panel.plot(
                places,
                values,
                marker="o",
                markersize=3.5,
                linewidth=0.9,
                color=_color(results, method),
                label=method,
            )
        panel.set_xticks(places, results.clips, rotation=90, fontsize=7)
        panel.grid(axis="y", linewidth=0.4, color="0.88")
        _dress(panel, metric, vertical=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    return figure


def _panels(
    count: int, columns: int, height: float, legend: float = 0.0
) -> tuple[Figure, Sequence[Axes]]:
    rows = -(-count // columns)
    figure = Figure(figsize=(_WIDTH, rows * height + legend), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    return figure, panels[:count]


def _dress(panel: Axes, metric: str, *, vertical: bool = False) -> None:
    unit, better, _ = METRICS[metric]
    panel.set_title(metric.replace("_", " "), fontsize=10, loc="left")
    label = f"{unit}, {better} is better" if unit else f"{better} is better"
    (panel.set_ylabel if vertical else panel.set_xlabel)(label, fontsize=8)
    panel.tick_params(labelsize=7 if vertical else 8)
    panel.spines[["top", "right"]].set_visible(False)


def _color(results: Results, method: str) -> str:
    return f"C{[m for m in results.methods if m != TRUTH].index(method) % 10}"


def _page(results: Results, output: Path) -> str:
    options, versions = results.options, results.versions
    size = "x".join(map(str, options["size"])) if options.get("size") else "their own size"
    frames = options.get("frames") or "all"
    about = (
        f"{len(results.clips)} clips at {size}, {frames} frames of each; seed {options.get('seed')}. "
        f"vinpaint {versions.get('version')}, torch {versions.get('torch')}, "
        f"{', '.join(versions.get('device_names', []))}. "
        "No method sees what it has to fill, and the known pixels of every result are the clip's own. "
        "Everything here is in results.json; the holes are in masks/ and can be used again."
    )
    body = [
        f"<p>{escape(about)}</p>",
        *(_failures(results) if results.failures else []),
        *(part for hole in results.holes for part in _hole_section(results, hole, output)),
        "<h2>Definitions</h2>",
        "<table class=words>",
        *(
            f"<tr><th>{escape(name)} {arrow(name)}<td>{escape(METRICS[name].unit)}<td>"
            f"{escape(METRICS[name].definition)}"
            for name in METRICS
        ),
        "</table>",
        "<h2>Methods</h2>",
        "<table class=words>",
        *(f"<tr><th>{escape(name)}<td>{escape(text)}" for name, text in DESCRIPTIONS.items()),
        "</table>",
    ]
    return _FRAME.format(body="\n".join(body))


def _table(results: Results, hole: str, caption: str) -> list[str]:
    head = "".join(f"<th>{escape(name)} {arrow(name)}" for name in results.metrics(hole))
    rows = [
        f"<tr><th>{escape(name.text)}"
        + "".join(f"<td{' class=best' if cell.best else ''}>{cell.text}" for cell in cells)
        for name, *cells in results.cells(hole)
    ]
    return [f"<table><tr><th>{escape(caption)}{head}", *rows, "</table>"]


def _groups(results: Results, hole: str) -> list[str]:
    """Tables of the clips that move alike, and of those whose holes are seen as much."""
    tables = []
    for name, clips in results.groups(hole).items():
        caption = f"{name}: {', '.join(clips)}"
        tables += _table(results.among(hole, clips), hole, caption)
    if not tables:
        return []
    bounds = "; ".join(
        ", ".join(f"{name} up to {most:.2g}" for name, most in bounds.items() if most < math.inf)
        for bounds in (MOTIONS, SEEN)
    )
    note = (
        "By the median length of the truth's flow, in pixels a frame, and by the share of the hole's pixels that come out of the "
        f"hole in some frame if one follows that flow ({bounds})."
    )
    return ["<h3>By motion and by share seen</h3>", f"<p>{escape(note)}</p>", *tables]


def _hole_section(results: Results, hole: str, output: Path) -> list[str]:
    plots = []
    if hole in _plotted(results):
        plots = [
            _picture(_bars_path(hole), f"Means of every metric, {hole} hole"),
            "<h3>Clip by clip</h3>",
            _picture(_lines_path(hole), f"Every metric over the clips, {hole} hole"),
        ]
    return [
        f"<h2>Hole: {escape(hole)}</h2>",
        f"<p>{escape(HOLES.get(hole, 'read from a folder of masks').capitalize())}.</p>",
        *_table(results, hole, "mean of the clips"),
        *plots,
        *_groups(results, hole),
        *(
            f"<details><summary>{escape(clip)}</summary>"
            f"{_picture(sheet_path(output, hole, clip).relative_to(output), f'{clip}, {hole} hole')}</details>"
            for clip in results.clips
            if clip in results.scored(hole)
        ),
    ]


def _failures(results: Results) -> list[str]:
    lines = (
        f"<li>{escape(f'{f.method} on {f.clip} ({f.hole}): {f.reason}')}" for f in results.failures
    )
    return ["<h2>Failures</h2>", "<ul class=failures>", *lines, "</ul>"]


def _picture(path: Path, text: str) -> str:
    return f'<img loading="lazy" src="{escape(path.as_posix())}" alt="{escape(text)}">'


_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>vinpaint evaluation</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: #222; }}
table {{ border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }}
th, td {{ padding: .3em .7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }}
th:first-child {{ text-align: left; }}
.words td {{ text-align: left; white-space: normal; vertical-align: top; }}
.words th {{ vertical-align: top; }}
.best {{ font-weight: 700; background: #eaf6ea; }}
.failures {{ color: #a00; }}
summary {{ cursor: pointer; padding: .3em 0; }}
img {{ max-width: 100%; height: auto; display: block; }}
</style>
</head>
<body>
<h1>vinpaint evaluation</h1>
{body}
</body>
</html>
"""
