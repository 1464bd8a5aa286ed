# SPDX-License-Identifier: Apache-2.0
"""What the frames of a clip have in common: edges that stay, and where all else moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_FRAMES = 96  # kept at most; when there are more every second one is let go
_PIXELS = 300_000  # of a kept frame: letters stay legible; 96 frames and gradients take 230 MB

# Gradients are in grey levels a pixel, changes in grey levels.
_SEED_STRENGTH = 5.0  # an overlay of a tenth of full contrast still has it at its edges
_RIPPLE = 0.15  # of the strongest edge within a coding block
_CORE = 0.4  # of the strongest edge around: without the foot that blur and coding give an edge
_FINE = 16  # steps a grey level, in which gradients are kept
_AGREES = 0.4  # share of the median gradient that a frame's must have along it
_FAINT = 1.5  # above noise; from here on direction alone may count
_DIRECTION = 0.85  # cosine of the angle between a faint gradient and the median's
_SEED_KEPT = 0.8  # share of the frames that must agree; moving content has 0.5, by chance
_STILL_KEPT = 0.8  # a part of the scene that stands still
_TEXTURED = 5.0  # mean gradient from which movement would be seen
_OTHER = 14.0  # a pixel shows something else: well beyond noise and coding
_NEAR = 21  # pixels across the window in which something else is looked for
SEEN_OTHER = 0.3  # share of frames with something else around, to judge by these frames alone


@dataclass(frozen=True)
class Sample:
    planes: Picture  # (3, N, h, w): Y, Cr and Cb, made smaller, spread evenly over the frames
    mean: Floats  # (H, W, 3), of all frames


def gather(frames: Iterable[Picture]) -> Sample:
    kept: list[Picture] = []
    total: Floats | None = None
    size, step, count = (0, 0), 1, 0
    for frame in frames:
        if total is None:
            size = _reduced_size(frame.shape[1], frame.shape[0])
            total = np.zeros(frame.shape, np.float32)
        if frame.shape != total.shape:
            raise ValueError(f"expected frames of one size {total.shape}, got {frame.shape}")
        cv2.accumulate(frame, total)
        if count % step == 0 and len(kept) == _FRAMES:
            kept = kept[::2]
            step *= 2
        if count % step == 0:
            small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            kept.append(np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb), np.uint8))
        count += 1
    if total is None:
        raise ValueError("expected at least one frame, got none")
    planes = np.empty((3, len(kept), *kept[0].shape[:2]), np.uint8)
    for number, picture in enumerate(kept):
        planes[:, number] = picture.transpose(2, 0, 1)
    return Sample(planes, total / np.float32(count))


def _reduced_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, (_PIXELS / (width * height)) ** 0.5)
    return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(frozen=True)
class Edges:
    """What the frames have in common at each pixel, (h, w)."""

    seeds: Bools  # edges that stay, in brightness or in colour
    strength: Floats  # of the median gradient, in the plane where it is greatest
    direction: Floats  # (2, h, w), the median gradient itself
    kept: Floats  # share of the frames that agree with it: those with something else around, if any
    textured: Bools  # where movement would be seen
    still: Bools  # textured, and the same throughout
    other: Floats  # share of the frames in which the pixel shows something else
    surrounded: Floats  # share of the frames in which much around it does


def measure(planes: Picture) -> Edges:
    frames, shape = planes.shape[1], planes.shape[2:]
    other, surrounded = np.zeros(shape, np.float32), np.zeros((frames, *shape), bool)
    usual = _median(planes[0])
    for number, gray in enumerate(planes[0]):
        change = gray - usual
        change -= np.median(change[::4, ::4])  # exposure that follows the content is no change
        differs = (np.abs(change) > _OTHER).astype(np.float32)
        other += differs
        surrounded[number] = cv2.blur(differs, (_NEAR, _NEAR)) > 0.25
    direction, kept, texture, always = _steadiness(planes[0], surrounded)
    strength = _length(direction)
    active = _active(texture, other)
    inside = np.zeros(shape, bool)
    inside[active] = True
    textured = (texture > _TEXTURED) & inside
    still = textured & (strength > 0.8 * _TEXTURED) & (always > _STILL_KEPT)
    seeds = inside & _seeds(strength, kept)
    for plane in planes[1:]:
        if plane.max() - plane.min() < _SEED_STRENGTH:
            continue
        color_direction, colored_kept, _, _ = _steadiness(plane, surrounded)
        colored = _length(color_direction)
        more = inside & _seeds(colored, colored_kept)
        better = (colored_kept * np.minimum(colored, 8) > kept * np.minimum(strength, 8)) | (
            more & ~seeds
        )
        strength = np.where(better, colored, strength)
        direction = np.where(better, color_direction, direction)
        kept = np.where(better, colored_kept, kept)
        seeds |= more
    strength = np.where(inside, strength, np.float32(0))
    share = surrounded.mean(0, np.float32)
    seeds = _off_border(seeds, strength, active)
    return Edges(seeds, strength, direction, kept, textured, still, other / frames, share)


def _length(direction: Floats) -> Floats:
    return np.asarray(cv2.magnitude(direction[0], direction[1]), np.float32)


def _seeds(strength: Floats, kept: Floats) -> Bools:
    """Edges that stay, without the ripples that coding leaves beside strong ones."""
    least = np.maximum(_SEED_STRENGTH, _RIPPLE * _strongest(strength))
    return np.asarray((strength > least) & (kept > _SEED_KEPT))


def _off_border(seeds: Bools, strength: Floats, active: tuple[slice, slice]) -> Bools:
    """The seeds without those that hang together with the frame's border, as a bar's edge does."""
    if not seeds[active].any():
        return seeds
    # Not through the faint foot of an edge: a logo's may reach the border.
    core = seeds & (strength > _CORE * _strongest(strength))
    thick = cv2.dilate(core[active].astype(np.uint8), np.ones((3, 3), np.uint8))
    count, labels = cv2.connectedComponents(thick, connectivity=8)
    attached = np.zeros(count, bool)
    for line in (labels[:1], labels[-1:], labels[:, :1], labels[:, -1:]):
        attached[np.unique(line)] = True
    attached[0] = False
    gone = cv2.dilate(attached[labels].astype(np.uint8), np.ones((5, 5), np.uint8))
    free = seeds.copy()
    free[active] &= gone == 0
    return free


def _strongest(strength: Floats) -> Floats:
    return np.asarray(cv2.dilate(strength, np.ones((25, 25), np.uint8)), np.float32)


def _steadiness(plane: Picture, surrounded: Bools) -> tuple[Floats, Floats, Floats, Floats]:
    """Of one plane (N, h, w): direction and kept as in Edges, mean gradient, kept of all frames."""
    across, down = np.empty(plane.shape, np.int16), np.empty(plane.shape, np.int16)
    texture, always, near = (np.zeros(plane.shape[1:], np.float32) for _ in range(3))
    for number, picture in enumerate(plane):
        x, y = _gradient(picture)
        texture += cv2.magnitude(x, y)
        np.rint(_FINE * x, out=across[number], casting="unsafe")
        np.rint(_FINE * y, out=down[number], casting="unsafe")
    x, y = _median(across) / np.float32(_FINE), _median(down) / np.float32(_FINE)
    strength = np.asarray(cv2.magnitude(x, y), np.float32)
    need = _FINE * _AGREES * strength**2
    for number, judged in enumerate(surrounded):
        frame_x, frame_y = across[number].astype(np.float32), down[number].astype(np.float32)
        along = x * frame_x + y * frame_y
        size = cv2.magnitude(frame_x, frame_y)
        # A bright logo has little contrast to a bright scene, but in the same direction.
        agrees = (along > need) | ((size > _FINE * _FAINT) & (along > _DIRECTION * size * strength))
        always += agrees
        near += agrees & judged
    frames, seen = len(plane), surrounded.sum(0, np.float32)
    always /= frames
    kept = np.where(seen > SEEN_OTHER * frames, near / np.maximum(seen, 1), always)
    return np.stack([x, y]), kept.astype(np.float32), texture / np.float32(frames), always


def _gradient(picture: Picture) -> tuple[Floats, Floats]:
    smooth = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.asarray(across / 4, np.float32), np.asarray(down / 4, np.float32)


def _median(stack: npt.NDArray[np.int16] | Picture) -> Floats:
    """The median over the first axis, in strips: it needs a copy of what it looks at."""
    strips = [np.median(stack[:, y : y + 32], axis=0) for y in range(0, stack.shape[1], 32)]
    return np.asarray(np.concatenate(strips), np.float32)


def _active(texture: Floats, other: Floats) -> tuple[slice, slice]:
    """The frame without bars, whose rows or columns never show a thing, and without its border."""
    lively = (texture > 1) | (other > 0)
    margin = 3 + round(0.005 * min(texture.shape))  # a frame drawn around the picture is blurred
    spans = []
    for axis in (1, 0):
        lines = np.flatnonzero(lively.mean(axis) > 0.02)
        first, last = (int(lines[0]), int(lines[-1]) + 1) if lines.size else (0, 0)
        spans.append(slice(first + margin, max(first + margin, last - margin)))
    return spans[0], spans[1]
