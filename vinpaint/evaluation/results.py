# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found, and its means."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from vinpaint.evaluation.conditions import MOTIONS, SEEN, Condition
from vinpaint.evaluation.methods import TRUTH
from vinpaint.evaluation.metrics import METRICS


@dataclass(frozen=True)
class Score:
    """One method on one clip with one kind of hole: values by their names in
    :data:`vinpaint.evaluation.metrics.METRICS`."""

    clip: str
    hole: str
    method: str
    values: dict[str, float]


@dataclass(frozen=True)
class Failure:
    """A method that gave nothing for a clip, and why."""

    clip: str
    hole: str
    method: str
    reason: str


class Cell(NamedTuple):
    """A cell of the table."""

    text: str
    best: bool = False


@dataclass
class Results:
    """What an evaluation found.

    Attributes:
        clips, holes, methods: what was compared, in the order of the tables.
        options: what the evaluation was asked for.
        versions: of what it ran with.
        scores: a clip, hole and method each.
        sets: by hole and method, the metrics of all clips together.
        conditions: by hole and clip, what the hole is like.
        failures: what is missing among the scores.
    """

    clips: list[str]
    holes: list[str]
    methods: list[str]
    options: dict[str, Any]
    versions: dict[str, Any]
    scores: list[Score] = field(default_factory=list)
    sets: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    conditions: dict[str, dict[str, Condition]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def fills(self) -> int:
        """How many there are in all: clips times holes times methods."""
        return len(self.clips) * len(self.holes) * len(self.methods)

    def of(self, hole: str, method: str) -> dict[str, Score]:
        """The scores of a method with one kind of hole, by clip."""
        return {s.clip: s for s in self.scores if (s.hole, s.method) == (hole, method)}

    def scored(self, hole: str) -> set[str]:
        """The clips that some method has scored on with one kind of hole; the others are broken."""
        return {score.clip for score in self.scores if score.hole == hole}

    def groups(self, hole: str) -> dict[str, list[str]]:
        """The clips of each condition that some have and others have not: motion, then share seen."""
        conditions = self.conditions.get(hole, {})
        found = {}
        for part, names in (("motion", MOTIONS), ("seen", SEEN)):
            of = {clip: getattr(condition, part) for clip, condition in conditions.items()}
            if len(set(of.values())) > 1:
                found.update({name: [c for c in of if of[c] == name] for name in names})
        return {name: clips for name, clips in found.items() if clips}

    def among(self, hole: str, clips: Collection[str]) -> Results:
        """The scores with one kind of hole on some of the clips."""
        return replace(
            self,
            clips=[clip for clip in self.clips if clip in clips],
            holes=[hole],
            scores=[s for s in self.scores if s.hole == hole and s.clip in clips],
            sets={},
            failures=[f for f in self.failures if f.hole == hole and f.clip in clips],
        )

    def mean(self, hole: str, method: str) -> dict[str, float]:
        """The mean of every metric over the clips that have it: of times the median, of memory the largest."""
        means = dict(self.sets.get(hole, {}).get(method, {}))
        for name in METRICS:
            values = [s.values.get(name, math.nan) for s in self.of(hole, method).values()]
            found = [value for value in values if not math.isnan(value)]
            if found:
                means[name] = _MEANS.get(name, fmean)(found)
        return {name: means[name] for name in METRICS if name in means}

    def best(self, hole: str, metric: str) -> list[str]:
        """The methods with the best mean, the truth aside, and those that lack a clip which others have."""
        found = {
            method: self.mean(hole, method)[metric]
            for method in self.methods
            if method != TRUTH
            and self.of(hole, method).keys() == self.scored(hole)
            and metric in self.mean(hole, method)
        }
        better = min if METRICS[metric].better == "lower" else max
        return [m for m, value in found.items() if value == better(found.values())]

    def metrics(self, hole: str) -> list[str]:
        """The metrics that some method has, in the order of their definitions."""
        found = {name for method in self.methods for name in self.mean(hole, method)}
        return [name for name in METRICS if name in found]

    def cells(self, hole: str) -> list[list[Cell]]:
        """The table of a kind of hole: a row a method, a column a metric."""
        rows = []
        for method in self.methods:
            scored, mean = len(self.of(hole, method)), self.mean(hole, method)
            missing = f" ({scored} of {len(self.clips)} clips)" if scored < len(self.clips) else ""
            row = [Cell(method + missing)]
            for name in self.metrics(hole):
                text = number(name, mean[name]) if name in mean else "-"
                row.append(Cell(text, best=method in self.best(hole, name)))
            rows.append(row)
        return rows

    def table(self, hole: str) -> str:
        """The same as Markdown, with aligned columns; the best is bold, an arrow points to the better."""
        head = ["method", *(f"{name} {arrow(name)}" for name in self.metrics(hole))]
        rows = [[f"**{text}**" if best else text for text, best in row] for row in self.cells(hole)]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
        lines = [
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
            for row in (head, rule, *rows)
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def save(self, path: str | Path) -> None:
        """Write everything, means included, as JSON; what is no number becomes ``null``."""
        means = {hole: {m: self.mean(hole, m) for m in self.methods} for hole in self.holes}
        text = json.dumps(_plain({**asdict(self), "means": means}), indent=1, allow_nan=False)
        Path(path).write_text(text + "\n")


def arrow(metric: str) -> str:
    """Where the better values of a metric lie."""
    return "↑" if METRICS[metric].better == "higher" else "↓"


def number(metric: str, value: float) -> str:
    """A value as the table shows it: four figures, of what varies from run to run fewer."""
    digits = {"seconds_per_frame": 2, "peak_memory": 3, "gpu_memory": 3}.get(metric, 4)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.{digits}g}".rstrip(".")


_MEANS: dict[str, Callable[[list[float]], float]] = {
    "seconds_per_frame": median,
    "peak_memory": max,
    "gpu_memory": max,
}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
