# SPDX-License-Identifier: Apache-2.0
"""Plots what was measured: from benchmarks/results to docs/pages/pictures/plot-*.svg.

``python docs/tools/plots.py`` draws them; ``--check`` says which were drawn from other figures than there are now. Each file
carries a digest of its figures, since another version of matplotlib draws the same a little differently.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
FOLDER = ROOT / "docs" / "pages" / "pictures"

OURS, PEER, THIRD = "#00796b", "#90a4ae", "#ef6c00"

Rows = list[list[str]]


def tables(text: str) -> list[Rows]:
    """The tables of a Markdown file: rows of cells, the head first."""
    found: list[Rows] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            found.append([])
        inside = True
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            found[-1].append(cells)
    return found


def _benchmarks(name: str) -> dict[str, dict[str, Any]]:
    return {b["name"]: b for b in json.loads((RESULTS / name).read_text())["benchmarks"]}


# --- the figures: what each plot shows, as plain data


def speed() -> dict[str, Any]:
    """Seconds of both networks, ours and the peers'."""
    found = _benchmarks("cpu-zen5-2cores.json")
    names = {
        "ours": "vinpaint",
        "openvino_{}": "OpenVINO",
        "compile_{}": "torch.compile, freezing",
        "plain_{}_channels_last": "plain torch, channels last",
    }
    return {
        precision: {
            label: found[f"test_whole_network[{precision}]"][f"{name.format(precision)}_s"]
            for name, label in names.items()
        }
        for precision in ("bf16", "fp32")
    }


def lookahead() -> dict[str, Any]:
    """Four scores of streams by look-ahead."""
    table = tables((RESULTS / "lookahead.md").read_text())[0]
    return {"head": table[0], "rows": table[1:]}


def quality() -> dict[str, Any]:
    """Means over six clips, by method."""
    box, moving, *_ = tables((RESULTS / "propagation.md").read_text())
    return {"a box": box, "a moving object": moving}


def clips() -> dict[str, Any]:
    """Clip by clip: l1 by how much of the hole another frame shows."""
    table = tables((RESULTS / "propagation.md").read_text())[2]
    return {
        row[0]: [float(row[column].split("/")[0]) for column in (1, 2, 3)] + [float(row[4])]
        for row in table[1:]
    }


def predicted() -> dict[str, Any]:
    """Microseconds of every layer on an H200, counted and not timed."""
    table = tables((RESULTS / "predicted-h200.md").read_text())[0]
    head = table[0]
    columns = [head.index(name) for name in ("layer", "µs mma.sync", "µs WGMMA")]
    layers = [row for row in table[1:] if row[0].startswith(("3DCN ", "CombCN "))]
    return {row[columns[0]]: [float(row[c]) for c in columns[1:]] for row in layers}


# --- how they are drawn


def _draw_speed(figures: dict[str, Any], plt: Any) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.4), layout="constrained")
    for axis, (precision, seconds) in zip(axes, figures.items(), strict=True):
        names, values = list(seconds), list(seconds.values())
        bars = axis.barh(names, values, color=[OURS] + [PEER] * (len(names) - 1))
        axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.invert_yaxis()
        axis.set_title(precision)
        axis.set_xlim(0, 1.15 * max(values))
        axis.set_xlabel("seconds")
    return figure


def _draw_lookahead(figures: dict[str, Any], plt: Any) -> Any:
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
    rows = figures["rows"]
    frames = [int(row[0]) for row in rows if row[0].isdecimal()]
    for i, (axis, name) in enumerate(
        zip(axes, ("l1 in the hole", "PSNR, dB", "LPIPS", "warp error, 1e-3"), strict=True)
    ):
        for kind, first, color in (("a box", 1, OURS), ("an object", 5, THIRD)):
            values = [float(row[first + i]) for row in rows]
            axis.plot(frames, values[: len(frames)], marker="o", color=color, label=kind)
            axis.axhline(values[-1], color=color, linestyle=":", linewidth=1)
        axis.set_title(name)
        axis.set_xlabel("look-ahead, frames")
        axis.set_xticks([0, 4, 8, 13])
    axes[0].plot([], [], color="black", linestyle=":", label="a smooth fill")
    axes[0].legend(fontsize=8)
    return figure


def _draw_quality(figures: dict[str, Any], plt: Any) -> Any:
    figure, axes = plt.subplots(2, 4, figsize=(11, 4.6), layout="constrained")
    for row, (hole, table) in zip(axes, figures.items(), strict=True):
        methods = [line for line in table[1:] if line[0] != "truth"]
        for axis, column in zip(row, (1, 2, 3, 4), strict=True):
            values = [float(line[column]) for line in methods]
            names = [line[0] for line in methods]
            bars = axis.barh(
                names, values, color=[OURS if n == "vinpaint" else PEER for n in names]
            )
            axis.bar_label(bars, padding=3, fontsize=8)
            axis.invert_yaxis()
            axis.set_xlim(0, 1.25 * max(values))
            better = "higher" if table[0][column] == "PSNR" else "lower"
            axis.set_title(f"{table[0][column]} ({better} is better)", fontsize=9)
            if column > 1:
                axis.set_yticklabels([])
        row[0].set_ylabel(hole)
    return figure


def _draw_clips(figures: dict[str, Any], plt: Any) -> Any:
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    names = ("vinpaint", "the networks alone", "a smooth fill")
    for i, (name, color, marker) in enumerate(zip(names, (OURS, THIRD, PEER), "osD", strict=True)):
        points = [(values[3], values[i]) for values in figures.values()]
        axis.scatter(*zip(*points, strict=True), color=color, marker=marker, label=name)
    for values in figures.values():
        axis.plot([values[3]] * 2, [min(values[:3]), max(values[:3])], color="#cfd8dc", zorder=0)
    axis.set_xlabel("share of the hole that another frame shows (by the true flow)")
    axis.set_ylabel("l1 in the hole, of 255")
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure


def _draw_predicted(figures: dict[str, Any], plt: Any) -> Any:
    figure, axis = plt.subplots(figsize=(9, 7), layout="constrained")
    places = range(len(figures))
    axis.barh(
        [p - 0.2 for p in places],
        [v[0] for v in figures.values()],
        0.4,
        color=PEER,
        label="mma.sync",
    )
    axis.barh(
        [p + 0.2 for p in places], [v[1] for v in figures.values()], 0.4, color=OURS, label="WGMMA"
    )
    axis.set_yticks(list(places), list(figures), fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("µs, predicted, not measured")
    axis.legend()
    return figure


PLOTS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any], Any], Any]]] = {
    "speed": (speed, _draw_speed),
    "lookahead": (lookahead, _draw_lookahead),
    "quality": (quality, _draw_quality),
    "clips": (clips, _draw_clips),
    "predicted-h200": (predicted, _draw_predicted),
}


def _digest(figures: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()


def stale() -> list[str]:
    """Plots that are missing or show other figures than there are."""
    found = []
    for name, (figures, _) in PLOTS.items():
        path = FOLDER / f"plot-{name}.svg"
        if not path.exists() or _digest(figures()) not in path.read_text():
            found.append(path.name)
    return found


def draw() -> None:
    """Draw all of them."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({
        "svg.fonttype": "none", "svg.hashsalt": "vinpaint", "font.family": "sans-serif",
        "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip
    for name, (figures, drawn) in PLOTS.items():
        data = figures()
        figure = drawn(data, plt)
        about = {"Date": None, "Creator": None, "Description": _digest(data)}
        figure.savefig(FOLDER / f"plot-{name}.svg", metadata=about)
        plt.close(figure)


def main(arguments: list[str]) -> int:
    """Draw, or with --check only look."""
    if arguments == ["--check"]:
        names = stale()
        print("\n".join(f"not up to date: {name}" for name in names))
        return int(bool(names))
    draw()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
