# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: a table, plots, and a page with everything on it."""

from __future__ import annotations

from vinpaint.evaluation.methods import TRUTH
from vinpaint.evaluation.metrics import METRICS
from vinpaint.evaluation.results import Results


def table(results: Results, hole: str) -> str:
    """A Markdown table: a row a method, a column a metric, the mean over the clips; the best is bold."""
    names = _metrics(results, hole)
    head = [
        "method",
        *(f"{name} {'↑' if METRICS[name].better == 'higher' else '↓'}" for name in names),
    ]
    rows = [[_label(results, hole, m), *_cells(results, hole, m, names)] for m in results.methods]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [head, ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])], *rows]
    return "\n".join(
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in lines
    )


def _metrics(results: Results, hole: str) -> list[str]:
    """The metrics that some method has, in the order of their definitions."""
    found = {name for method in results.methods for name in results.mean(hole, method)}
    return [name for name in METRICS if name in found]


def _label(results: Results, hole: str, method: str) -> str:
    """The method's name, and of how many clips its means are if not of all."""
    scored = len(results.of(hole, method))
    return (
        method
        if scored == len(results.clips)
        else f"{method} ({scored} of {len(results.clips)} clips)"
    )


def _cells(results: Results, hole: str, method: str, names: list[str]) -> list[str]:
    mean = results.mean(hole, method)
    cells = []
    for name in names:
        text = _number(mean[name]) if name in mean else "-"
        best = method != TRUTH and name in mean and method in results.best(hole, name)
        cells.append(f"**{text}**" if best else text)
    return cells


def _number(value: float) -> str:
    """Four figures, as many as the clips can tell apart."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}"
