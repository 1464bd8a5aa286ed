# SPDX-License-Identifier: Apache-2.0
"""The evaluation: every clip with every kind of hole through every method, scored."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.evaluation.data import Clip, Frames, Hole, find_clips, load_frames
from vinpaint.evaluation.flow import TruthFlow
from vinpaint.evaluation.holes import HOLES, RATIO, make_hole, read_hole, write_hole
from vinpaint.evaluation.methods import TRUTH, Method, resolve_methods
from vinpaint.evaluation.metrics import measure
from vinpaint.evaluation.results import Failure, Results, Score
from vinpaint.evaluation.sheets import Sheet
from vinpaint.evaluation.worker import Filled, Worker
from vinpaint.info import build_info, version
from vinpaint.video.atomic import AtomicOutput

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
    isolate: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Fill holes in whole clips by several methods, and hold what they give against the truth.

    No method sees what it has to fill: the hole of its frames is black. Known pixels of every result are the
    input's. An evaluation that was interrupted goes on from what ``output`` holds.

    Args:
        data: a folder of clips (see :func:`vinpaint.evaluation.data.find_clips`).
        methods: names out of :data:`vinpaint.evaluation.methods.DESCRIPTIONS`, or methods of your own.
        output: the folder for the masks, the fills, the contact sheets and ``results.json``.
        size: width and height in pixels to bring the clips to; ``None`` keeps theirs.
        frames: frames of each clip, from its first on; ``None``: all.
        holes: kinds out of :data:`vinpaint.evaluation.holes.HOLES`. Without any those in ``masks``, or else
            ``box``, and ``object`` if some clip has object masks.
        ratio: share of the frame that a box or free-form hole covers.
        masks: the folder ``masks`` of an earlier output, whose holes are taken instead of new ones.
        weights: folders of weights for the networks; see :func:`vinpaint.evaluation.methods.resolve_methods`.
        seed: everything random derives from it.
        device: where the networks run.
        precision: what they compute in.
        isolate: run each method in a process of its own, which its peak memory needs. Such a script needs
            ``if __name__ == "__main__":``.
        progress: called with the fills scored so far and in all.

    Returns:
        The scores. Where a method fails on a clip, the others go on, and ``failures`` has the reason.

    Raises:
        InputError: what is asked for does not exist, cannot be read or does not fit.
    """
    clips = find_clips(data)
    rows = resolve_methods(methods, weights=weights, device=device, precision=precision)
    source = _Holes(clips, holes, ratio, seed, None if masks is None else Path(masks))
    output = Path(output)
    results = Results(
        clips=[clip.name for clip in clips],
        holes=source.kinds,
        methods=[row.name for row in rows],
        options={
            "data": str(data),
            "size": size,
            "frames": frames,
            "ratio": ratio,
            "masks": None if masks is None else str(masks),
            "weights": [str(folder) for folder in weights],
            "seed": seed,
            "device": device,
            "precision": precision,
            "isolate": isolate,
        },
        versions=build_info(),
    )
    with ExitStack() as stack:
        workers = {
            row.name: stack.enter_context(closing(Worker(row, isolate=isolate))) for row in rows
        }
        done, total = 0, len(clips) * len(source.kinds) * len(rows)
        for clip in clips:
            truth = load_frames(clip, size, frames)
            judge = _Judge(truth)
            for kind in source.kinds:
                hole = source.of(kind, clip, truth.shape[:3])
                _keep_hole(output / "masks" / kind / clip.name, hole, source.folder(kind, clip))
                sheet = Sheet(truth, hole)
                for row in rows:
                    store = _Store(output / "fills" / kind / clip.name / _slug(row.name))
                    try:
                        values, filled = _score(row, workers[row.name], store, judge, hole)
                    except Exception as error:  # noqa: BLE001 - reported; the others go on
                        reason = str(error) or type(error).__name__
                        results.failures.append(Failure(clip.name, kind, row.name, reason))
                    else:
                        results.scores.append(Score(clip.name, kind, row.name, values))
                        if row.name != TRUTH:
                            sheet.add(row.name, filled)
                    done += 1
                    if progress is not None:
                        progress(done, total)
                sheet.save(sheet_path(output, kind, clip.name))
    results.save(output / "results.json")
    return results


def sheet_path(output: Path, kind: str, clip: str) -> Path:
    """Where the contact sheet of a clip and a kind of hole lies."""
    return output / "sheets" / kind / f"{clip}.jpg"


class _Holes:
    """Where the holes come from: made, or read from a folder."""

    def __init__(
        self,
        clips: Sequence[Clip],
        kinds: Sequence[str],
        ratio: float,
        seed: int,
        masks: Path | None,
    ) -> None:
        if not 0 < ratio < 1:
            raise InputError(f"--hole-ratio: expected a share above 0 and below 1, got {ratio}")
        self._clips, self._ratio, self._seed, self._masks = clips, ratio, seed, masks
        if masks is not None:
            if not masks.is_dir():
                raise InputError(f"--masks: expected a folder, found no folder {masks}")
            known = [path.name for path in sorted(masks.iterdir()) if path.is_dir()]
        else:
            known = list(HOLES)
        objects = any(clip.objects is not None for clip in clips)
        standard = known if masks is not None else ["box", "object"] if objects else ["box"]
        self.kinds = list(dict.fromkeys(kinds)) or standard
        unknown = [kind for kind in self.kinds if kind not in known]
        if unknown or not self.kinds:
            raise InputError(
                f"--holes: expected some of {', '.join(known) or 'the folders in --masks, which has none'}, "
                f"got {', '.join(unknown) or 'none'}"
            )

    def folder(self, kind: str, clip: Clip) -> Path | None:
        """Where a clip's masks are read from; ``None`` if they are made."""
        return None if self._masks is None else self._masks / kind / clip.name

    def of(self, kind: str, clip: Clip, shape: tuple[int, int, int]) -> Hole:
        folder = self.folder(kind, clip)
        if folder is None:
            return make_hole(kind, clip, self._clips, shape, ratio=self._ratio, seed=self._seed)
        return read_hole(folder, shape)


def _keep_hole(folder: Path, hole: Hole, read_from: Path | None) -> None:
    """Write the masks for others to use, unless they lie there already."""
    if read_from is None or read_from.resolve() != folder.resolve():
        write_hole(folder, hole)


class _Judge:
    """Scores fills of one clip."""

    def __init__(self, truth: Frames) -> None:
        self.truth = truth
        self.digest = _digest(truth)

    @cached_property
    def _flows(self) -> TruthFlow | None:
        return TruthFlow(self.truth) if len(self.truth) > 1 else None

    def __call__(self, filled: Frames, hole: Hole) -> dict[str, float]:
        return measure(filled, self.truth, hole, perceptual=None, flows=self._flows)


class _Store:
    """What is kept of a fill and its scores, so that neither is computed twice: two files, and what they rest on."""

    def __init__(self, stem: Path) -> None:
        self._pixels = stem.with_name(f"{stem.name}.npz")
        self._scores = stem.with_name(f"{stem.name}.json")

    def filled(self, key: str, make: Callable[[], Filled]) -> Filled:
        """What is kept under ``key``, else what ``make`` gives, which is kept."""
        if self._pixels.exists():
            with np.load(self._pixels) as kept:
                if str(kept["key"]) == key:
                    memory = float(kept["memory"])
                    return Filled(
                        kept["pixels"],
                        float(kept["seconds"]),
                        None if np.isnan(memory) else memory,
                    )
        filled = make()
        self._pixels.parent.mkdir(parents=True, exist_ok=True)
        with AtomicOutput(self._pixels, "file", overwrite=True) as path, path.open("wb") as file:
            memory = np.nan if filled.memory is None else filled.memory
            np.savez_compressed(
                file, key=key, pixels=filled.pixels, seconds=filled.seconds, memory=memory
            )
        return filled

    def scores(self, key: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The same for scores."""
        if self._scores.exists():
            kept = json.loads(self._scores.read_text())
            if kept["key"] == key:
                return dict(kept["values"])
        values = make()
        self._scores.parent.mkdir(parents=True, exist_ok=True)
        with AtomicOutput(self._scores, "file", overwrite=True) as path:
            path.write_text(json.dumps({"key": key, "values": values}))
        return values


def _score(
    method: Method, worker: Worker, store: _Store, judge: _Judge, hole: Hole
) -> tuple[dict[str, float], Frames]:
    """A method's scores on a clip, and its frames."""
    if method.name == TRUTH:
        key = _digest(judge.truth, hole, version())
        return store.scores(key, lambda: judge(judge.truth, hole)), judge.truth
    blank = np.where(hole[..., None], np.uint8(0), judge.truth)
    key = _digest(blank, hole, version(), method.name, method.identity, str(worker.isolate))
    kept = store.filled(key, lambda: worker(blank, hole))
    filled = blank
    filled[hole] = kept.pixels
    scores = store.scores(_digest(key, judge.digest), lambda: judge(filled, hole))
    costs = {"seconds_per_frame": kept.seconds}
    if kept.memory is not None:
        costs["peak_memory"] = kept.memory
    return {**scores, **costs}, filled


def _digest(*parts: NDArray[Any] | str) -> str:
    """A hash of arrays, their shapes and types, and of strings."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode())
        else:
            found.update(f"{part.dtype} {part.shape}".encode())
            found.update(np.ascontiguousarray(part).data)
        found.update(b"\0")
    return found.hexdigest()


def _slug(name: str) -> str:
    """A file name for a method's; different for different names."""
    return re.sub(r"[^A-Za-z0-9-]", lambda match: f"_{ord(match[0]):x}_", name)
