# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found, and its means."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

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


@dataclass
class Results:
    """What an evaluation found.

    Attributes:
        clips, holes, methods: what was compared, in the order of the tables.
        options: what the evaluation was asked for.
        versions: of what it ran with.
        scores: a clip, hole and method each.
        sets: by hole and method, the metrics of all clips together.
        failures: what is missing among the scores.
    """

    clips: list[str]
    holes: list[str]
    methods: list[str]
    options: dict[str, Any]
    versions: dict[str, Any]
    scores: list[Score] = field(default_factory=list)
    sets: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def of(self, hole: str, method: str) -> dict[str, Score]:
        """The scores of a method with one kind of hole, by clip."""
        return {s.clip: s for s in self.scores if (s.hole, s.method) == (hole, method)}

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
        """The methods with the best mean, the truth and those that lack a clip aside."""
        found = {
            method: self.mean(hole, method)[metric]
            for method in self.methods
            if method != TRUTH
            and len(self.of(hole, method)) == len(self.clips)
            and metric in self.mean(hole, method)
        }
        better = min if METRICS[metric].better == "lower" else max
        return [m for m, value in found.items() if value == better(found.values())]

    def save(self, path: str | Path) -> None:
        """Write everything, means included, as JSON; what is no number becomes ``null``."""
        means = {hole: {m: self.mean(hole, m) for m in self.methods} for hole in self.holes}
        text = json.dumps(_finite({**asdict(self), "means": means}), indent=1, allow_nan=False)
        Path(path).write_text(text + "\n")


_MEANS: dict[str, Callable[[list[float]], float]] = {
    "seconds_per_frame": median,
    "peak_memory": max,
}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
