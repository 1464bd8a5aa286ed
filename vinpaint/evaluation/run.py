# SPDX-License-Identifier: Apache-2.0
"""The evaluation: every clip with every kind of hole through every method, scored."""

from __future__ import annotations

import json
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from vinpaint.devices import resolve_device
from vinpaint.errors import InputError, InputWarning
from vinpaint.evaluation.cache import cached, digest
from vinpaint.evaluation.data import Clip, Frames, Hole, find_clips, load_frames
from vinpaint.evaluation.holes import RATIO, HoleSource
from vinpaint.evaluation.judge import ClipJudge, Judge, set_scores
from vinpaint.evaluation.methods import TRUTH, Method, resolve_methods
from vinpaint.evaluation.results import Failure, Results, Score
from vinpaint.evaluation.sheets import Sheet
from vinpaint.evaluation.video_distance import Features
from vinpaint.evaluation.worker import Worker
from vinpaint.info import build_info, version

RESULTS = "results.json"
"""All scores and options, in the folder of the report."""

METHODS = ("vinpaint", "harmonic", "telea", TRUTH)
"""What is compared unless something else is asked for."""


def evaluate(
    data: str | Path,
    methods: Iterable[str | Method] = METHODS,
    *,
    output: str | Path,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    holes: Sequence[str] = (),
    ratio: float = RATIO,
    masks: str | Path | None = None,
    weights: Sequence[str | Path] = (),
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    perceptual: bool = True,
    isolate: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Fill holes in whole clips by several methods, and hold what they give against the truth.

    No method sees what it has to fill: the hole of its frames is black. Known pixels of every result are the
    input's. An evaluation that was interrupted goes on from what ``output/cache`` holds; it knows changed clips,
    holes, weights and options, but not changed code of the same version.

    Args:
        data: a folder of clips (see :func:`vinpaint.evaluation.data.find_clips`).
        methods: names out of :data:`vinpaint.evaluation.methods.DESCRIPTIONS`, or methods of your own.
        output: the folder for ``results.json``, the masks, contact sheets, and what is kept for the next time.
        size: width and height in pixels to bring the clips to; ``None`` keeps theirs.
        frames: frames of each clip, from its first on; ``None``: all.
        holes: kinds out of :data:`vinpaint.evaluation.holes.HOLES`. Without any those last written in ``masks``, or else
            ``box``, and ``object`` if some clip has object masks.
        ratio: share of the frame that a box or free-form hole covers.
        masks: the folder ``masks`` of an earlier output, whose holes are taken instead of new ones.
        weights: folders of weights for the networks; see :func:`vinpaint.evaluation.methods.resolve_methods`.
        seed: everything random derives from it.
        device: where the networks run.
        precision: what they compute in.
        perceptual: ``False`` leaves LPIPS and VFID out, which take networks of their own.
        isolate: run each method in a process of its own, which its peak memory needs. Such a script needs
            ``if __name__ == "__main__":``.
        overwrite: replace a report of other clips, sizes or holes in ``output``; without it that is an error.
        progress: called with the fills scored so far and in all.

    Returns:
        The scores. Where a method fails on a clip, the others go on, and ``failures`` has the reason; a clip that
        cannot be read, or whose masks do not fit, is a failure of every method, and a warning before the first fill.

    Raises:
        InputError: what is asked for does not exist or does not fit.
    """
    options = {k: v for k, v in locals().items() if k not in ("methods", "overwrite", "progress")}
    clips = find_clips(data)
    rows = resolve_methods(methods, weights=weights, device=device, precision=precision)
    source = HoleSource(clips, holes, ratio=ratio, seed=seed, masks=masks)
    if not overwrite:
        _refuse_another(Path(output) / RESULTS, {**options, "holes": source.kinds})
    results = Results(
        clips=[clip.name for clip in clips],
        holes=source.kinds,
        methods=[row.name for row in rows],
        options=options,
        versions=build_info(),
    )
    judge = Judge(resolve_device(device), perceptual=perceptual)
    load = partial(load_frames, size=size, count=frames)
    run = _Run(Path(output), source, judge, results, load, progress)
    with ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(row, isolate=isolate))) for row in rows]
        source.record(run.masks)
        # All clips first: what is broken is told before hours of filling.
        sound = [(clip, run.check(clip)) for clip in clips]
        for clip, kinds in sound:
            if kinds:
                run.clip(clip, kinds, workers)
    run.finish()
    return results


def _refuse_another(path: Path, options: Mapping[str, Any]) -> None:
    """Other methods and weights may join a report; other clips, sizes or holes would replace it."""
    if not path.exists():
        return
    report = json.loads(path.read_text())
    there = {**report["options"], "holes": report["holes"]}
    wanted = json.loads(json.dumps(options, default=str))
    names = ("data", "size", "frames", "holes", "ratio", "masks", "seed")
    other = [f"{name} {there.get(name)!r}" for name in names if there.get(name) != wanted[name]]
    if other:
        raise InputError(
            f"--output: {path.parent} holds a report of {', '.join(other)}; expected another folder, or --overwrite"
        )


def sheet_path(output: Path, kind: str, clip: str) -> Path:
    """Where the contact sheet of a clip and a kind of hole lies."""
    return output / "sheets" / kind / f"{clip}.jpg"


class _Run:
    """Goes through the clips and collects what comes of them."""

    def __init__(
        self,
        output: Path,
        source: HoleSource,
        judge: Judge,
        results: Results,
        load: Callable[[Clip], Frames],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._output, self._source, self._judge, self._results = output, source, judge, results
        self._load, self._progress = load, progress
        self.masks = output / "masks"
        self._truths: dict[str, Features] = {}
        self._features: dict[tuple[str, str], dict[str, Features]] = defaultdict(dict)

    def check(self, clip: Clip) -> list[str]:
        """Read a clip and write its masks; the kinds of hole that it can be evaluated with."""
        try:
            shape = self._load(clip).shape[:3]
        except Exception as error:  # noqa: BLE001 - reported; the others go on
            self._leave_out(clip, self._source.kinds, error)
            return []
        sound = []
        for kind in self._source.kinds:
            try:
                hole = self._source.hole(kind, clip, shape)
                self._source.keep(self.masks, kind, clip, hole)
            except Exception as error:  # noqa: BLE001 - reported; the others go on
                self._leave_out(clip, [kind], error)
            else:
                sound.append(kind)
        return sound

    def clip(self, clip: Clip, kinds: Sequence[str], workers: Sequence[Worker]) -> None:
        """One clip with these kinds of hole through every method."""
        try:
            truth = self._load(clip)
            judge = ClipJudge(self._judge, truth)
            self._truths[clip.name] = judge.features(self._output / "cache" / f"{clip.name}.npz")
            for kind in kinds:
                self._kind(clip, kind, judge, workers)
        except Exception as error:  # noqa: BLE001 - reported; the others go on
            self._leave_out(clip, kinds, error)

    def finish(self) -> None:
        """Score the sets, and write the results."""
        for (kind, method), features in self._features.items():
            scored = self._results.scored(kind)
            truths = {name: found for name, found in self._truths.items() if name in scored}
            scores = set_scores(features, truths)
            self._results.sets.setdefault(kind, {})[method] = scores
        self._output.mkdir(parents=True, exist_ok=True)
        self._results.save(self._output / RESULTS)

    def _kind(self, clip: Clip, kind: str, judge: ClipJudge, workers: Sequence[Worker]) -> None:
        hole = self._source.hole(kind, clip, judge.truth.shape[:3])
        kept = self._output / "cache" / kind / f"{clip.name}.npz"
        self._results.conditions.setdefault(kind, {})[clip.name] = judge.condition(hole, kept)
        sheet = Sheet(judge.truth, hole)
        for worker in workers:
            case = (clip.name, kind, worker.method.name)
            try:
                filled, values = self._score(worker, judge, hole, case)
            except Exception as error:  # noqa: BLE001 - reported; the others go on
                self._results.failures.append(Failure(*case, _reason(error)))
            else:
                self._results.scores.append(Score(*case, values))
                if worker.method.name != TRUTH:
                    sheet.add(worker.method.name, filled)
            self._advance()
        sheet.save(sheet_path(self._output, kind, clip.name))

    def _leave_out(self, clip: Clip, kinds: Sequence[str], error: Exception) -> None:
        """A failure of every method that has neither scored nor failed on this clip and these kinds."""
        reason = _reason(error)
        done = {(s.clip, s.hole, s.method) for s in self._results.scores}
        done |= {(f.clip, f.hole, f.method) for f in self._results.failures}
        for kind, method in product(kinds, self._results.methods):
            if (clip.name, kind, method) not in done:
                self._results.failures.append(Failure(clip.name, kind, method, reason))
        warnings.warn(
            f"the clip {clip.name} is left out ({', '.join(kinds)}): {reason}",
            InputWarning,
            stacklevel=3,
        )
        self._advance()

    def _advance(self) -> None:
        if self._progress is not None:
            done = len(self._results.scores) + len(self._results.failures)
            self._progress(done, self._results.fills)

    def _score(
        self, worker: Worker, judge: ClipJudge, hole: Hole, case: tuple[str, str, str]
    ) -> tuple[Frames, dict[str, float]]:
        clip, kind, method = case
        stem = self._output / "cache" / kind / clip / _file_name(method)
        filled, costs = judge.truth, dict[str, float]()
        if method != TRUTH:
            filled, costs = _fill(worker, judge.truth, hole, stem.with_name(f"{stem.name}.npz"))
        scores, features = judge(filled, hole, stem.with_name(f"{stem.name}.scores.npz"))
        self._features[kind, method][clip] = features
        return filled, {**scores, **costs}


_COSTS = {"seconds_per_frame": "seconds", "peak_memory": "memory", "gpu_memory": "gpu_memory"}
"""Metrics that are attributes of :class:`vinpaint.evaluation.worker.Filled`."""


def _fill(worker: Worker, truth: Frames, hole: Hole, path: Path) -> tuple[Frames, dict[str, float]]:
    """A method's frames, the truth's outside the hole, and what they cost; kept in ``path``."""
    blank = np.where(hole[..., None], np.uint8(0), truth)
    method = worker.method
    key = digest(
        blank, hole, version(), method.name, method.identity, str(worker.isolate), str(_COSTS)
    )
    kept = cached(path, key, lambda: worker(blank, hole)._asdict())
    blank[hole] = kept["pixels"]
    costs = {metric: float(kept[name]) for metric, name in _COSTS.items()}
    return blank, {metric: cost for metric, cost in costs.items() if not np.isnan(cost)}


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _file_name(method: str) -> str:
    """A file name for a method's name; different for different ones."""
    return re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match[0]):x}_", method)
