# SPDX-License-Identifier: Apache-2.0
"""The holes of an evaluation: made from a seed, written as folders of PNG masks, read back."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.evaluation.data import Clip, Hole, load_objects, read_mask
from vinpaint.video.images import list_pictures, write_png
from vinpaint.video.masks import dilated

# The shapes below are frozen, whatever training draws: scores stay comparable from version to version.
HOLES = {
    "box": "a static box with the frame's aspect ratio, at a place drawn from the seed",
    "object": "the moving outline of another clip's object, or a drawn shape where no other clip has one",
    "free-form": "thick strokes that drift through the frame",
}
"""The kinds of hole, and what each is."""

RATIO = 1 / 16
"""Share of a frame's area that a box or free-form hole covers: a box of a quarter of its height and width."""

KINDS = "kinds.json"
"""Beside the masks: the kinds that the last evaluation wrote there; folders of other kinds are older."""

OBJECT_DILATION = 4
"""Pixels by which an object's outline is grown."""


class HoleSource:
    """Where the holes of an evaluation come from: made, or read from the masks of an earlier one.

    Args:
        clips: all clips.
        kinds: those wanted; without any those last written in ``masks``, or else ``box``, and ``object`` if some clip has
            object masks.
        ratio: share of the frame's area that a hole covers, see :func:`make_hole`.
        seed: everything random derives from it.
        masks: folder with a folder a kind, with a folder of masks a clip.

    Raises:
        InputError: an unknown kind, a ratio that is no share, a folder that is missing.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        kinds: Sequence[str] = (),
        *,
        ratio: float = RATIO,
        seed: int = 0,
        masks: str | Path | None = None,
    ) -> None:
        if not 0 < ratio < 1:
            raise InputError(f"--hole-ratio: expected a share above 0 and below 1, got {ratio}")
        self._clips, self._ratio, self._seed = clips, ratio, seed
        self._masks = None if masks is None else Path(masks)
        known = list(HOLES)
        wanted = known[: 2 if any(clip.objects is not None for clip in clips) else 1]
        if self._masks is not None:
            if not self._masks.is_dir():
                raise InputError(f"--masks: expected a folder, found no folder {masks}")
            known = [path.name for path in sorted(self._masks.iterdir()) if path.is_dir()]
            wanted = _recorded(self._masks / KINDS) or known
        self.kinds = list(dict.fromkeys(kinds or wanted))
        unknown = [kind for kind in self.kinds if kind not in known]
        if unknown or not self.kinds:
            raise InputError(
                f"--holes: expected some of {', '.join(known) or f'the folders in {masks}, which has none'}; "
                f"got {', '.join(unknown) or 'none'}"
            )

    def hole(self, kind: str, clip: Clip, shape: tuple[int, int, int]) -> Hole:
        """A clip's hole, bool ``shape`` = (F, H, W)."""
        if self._masks is not None:
            return read_hole(self._masks / kind / clip.name, shape)
        return make_hole(kind, clip, self._clips, shape, ratio=self._ratio, seed=self._seed)

    def record(self, folder: Path) -> None:
        """Write the kinds that :meth:`keep` is going to write, unless they were read from there."""
        if not self._is_source(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / KINDS).write_text(json.dumps(self.kinds) + "\n")

    def keep(self, folder: Path, kind: str, clip: Clip, hole: Hole) -> None:
        """Write the masks below ``folder`` for others to use, unless they were read from there."""
        if not self._is_source(folder):
            write_hole(folder / kind / clip.name, hole)

    def _is_source(self, folder: Path) -> bool:
        return self._masks is not None and self._masks.resolve() == folder.resolve()


def make_hole(
    kind: str,
    clip: Clip,
    clips: Sequence[Clip],
    shape: tuple[int, int, int],
    *,
    ratio: float = RATIO,
    seed: int = 0,
) -> Hole:
    """A clip's hole, bool ``shape`` = (F, H, W), from the seed and the clip's name alone.

    Args:
        kind: one of :data:`HOLES`.
        clip: the clip that gets the hole.
        clips: all clips: an object hole takes the outline of another one's object, for the clip's own would cover
            what nothing else shows. A shorter outline goes back and forth.
        shape: frames, height, width.
        ratio: share of the area that a box or free-form hole covers, and a drawn object; strokes to a pixel's thickness.
        seed: everything random derives from it.
    """
    rng = np.random.default_rng((seed, zlib.crc32(f"{kind}/{clip.name}".encode())))
    if kind == "box":
        return _box(rng, shape, ratio)
    if kind == "free-form":
        return _free_form(rng, shape, ratio)
    donors = [other for other in clips if other.objects is not None and other.name != clip.name]
    if donors:
        hole = _grown(_object(donors[rng.integers(len(donors))], shape))
        if hole.any() and not hole.all(axis=(1, 2)).any():
            return hole
    return _grown(_drawn_object(rng, shape, ratio))


def write_hole(folder: Path, hole: Hole) -> None:
    """Write (F, H, W) masks as ``00000.png``, ``00001.png``, …, white in the hole; others there are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index:05d}.png" for index in range(len(hole))]
    for path in folder.glob("*.png"):
        if path.name not in names:
            path.unlink()
    for name, plane in zip(names, hole, strict=True):
        write_png(folder / name, plane.astype(np.uint8) * 255)


def read_hole(folder: Path, shape: tuple[int, int, int]) -> Hole:
    """Read what :func:`write_hole` wrote.

    Raises:
        InputError: no such folder, masks of another count or size than ``shape``, (F, H, W), or without a hole
            or a known pixel.
    """
    if not folder.is_dir():
        raise InputError(f"--masks: expected a folder of masks a clip, found no folder {folder}")
    paths = list_pictures(folder, "--masks")
    if len(paths) != shape[0]:
        raise InputError(
            f"--masks: {folder} holds {len(paths)} masks, but the clip has {shape[0]} frames; "
            "expected one mask a frame"
        )
    planes = [read_mask(path) for path in paths]
    for path, plane in zip(paths, planes, strict=True):
        if plane.shape != shape[1:]:
            raise InputError(
                f"--masks: {path} is {plane.shape[1]} x {plane.shape[0]}, but the clip is evaluated at "
                f"{shape[2]} x {shape[1]}; expected the same size"
            )
    hole = np.stack(planes)
    if not hole.any() or hole.all():
        raise InputError(
            f"--masks: the masks in {folder} are all {'white' if hole.any() else 'black'}; "
            "expected some white pixels, the hole, and some black ones"
        )
    return hole


def _recorded(path: Path) -> list[str]:
    if not path.exists():  # masks that no evaluation wrote
        return []
    try:
        kinds = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"--masks: {path} is no JSON: {error}") from error
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise InputError(f"--masks: expected {path} to hold a list of kinds of hole, got {kinds!r}")
    return kinds


def _box(rng: np.random.Generator, shape: tuple[int, int, int], ratio: float) -> Hole:
    _, height, width = shape
    h, w = (max(1, round(side * ratio**0.5)) for side in (height, width))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    hole = np.zeros(shape, bool)
    hole[:, top : top + h, left : left + w] = True
    return hole


def _object(donor: Clip, shape: tuple[int, int, int]) -> Hole:
    count, height, width = shape
    outlines = load_objects(donor, (width, height), count)
    there_and_back = [*range(len(outlines)), *range(len(outlines) - 2, 0, -1)]
    return outlines[[there_and_back[i % len(there_and_back)] for i in range(count)]]


def _grown(hole: Hole) -> Hole:
    return np.stack([dilated(plane.view(np.uint8), OBJECT_DILATION) > 0 for plane in hole])


def _drawn_object(rng: np.random.Generator, shape: tuple[int, int, int], ratio: float) -> Hole:
    """A lumpy blob of ``ratio`` of the area that walks across the middle and changes its outline."""
    count, height, width = shape
    time = np.linspace(0, 1, count)
    start, end = rng.uniform(0.3, 0.7, (2, 2)) * (height, width)
    radius = (ratio * height * width / np.pi) ** 0.5
    waves = np.arange(2, 6)
    size, phase = rng.uniform(0.04, 0.12, 4), rng.uniform(0, 2 * np.pi, 4)
    turns = rng.uniform(-1, 1, 4) * 2 * np.pi
    y, x = np.mgrid[:height, :width]
    hole = np.empty(shape, bool)
    for plane, t in zip(hole, time, strict=True):
        dy, dx = y - (start + t * (end - start))[0], x - (start + t * (end - start))[1]
        angle = np.arctan2(dy, dx)[..., None]
        outline = 1 + (size * np.sin(waves * angle + phase + turns * t)).sum(-1)
        plane[...] = np.hypot(dy, dx) <= radius * outline
    return hole


def _free_form(rng: np.random.Generator, shape: tuple[int, int, int], ratio: float) -> Hole:
    """Strokes on a larger canvas that a window drifts over, as thick as ``ratio`` of the area asks for."""
    count, height, width = shape
    canvas = np.full((2 * height, 2 * width), 255, np.uint8)
    for _ in range(rng.integers(1, 3)):
        points = rng.uniform(0.3, 0.7, (rng.integers(2, 5), 2)) * (2 * width, 2 * height)
        cv2.polylines(canvas, [points.astype(np.int32)], False, 0)
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    ends = rng.uniform(0.35, 0.65, (2, 2)) * (height, width)
    path: NDArray[np.int64] = np.linspace(ends[0], ends[1], count).round().astype(np.int64)
    windows = np.stack([distance[t : t + height, w : w + width] for t, w in path])
    return np.asarray(windows <= np.quantile(windows, ratio))
