# SPDX-License-Identifier: Apache-2.0
"""What has to be computed: shots in time, neighbourhoods of the hole in space, and their working size.

A shot is filled from its own frames only. Inside a shot the hole's neighbourhoods stay the same from the
first frame to the last, so that cutting the shot into chunks changes nothing in the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError

CONTEXT = 48
"""Known pixels kept around a hole, at working size."""

WORKING_HOLE = 48
"""The thickest hole computed at full size, in pixels: what the networks met in training. A thicker one is
computed on frames reduced until it measures this much."""

WORKING_PIXELS = 1280 * 736
"""The largest working size, so that memory stays bounded whatever the frame's size."""


@dataclass(frozen=True)
class Region:
    """A neighbourhood of the hole: a box in the frame and the size it is computed at, in pixels."""

    top: int
    left: int
    height: int
    width: int
    working_height: int
    working_width: int

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns, to index a frame with."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    @property
    def resized(self) -> bool:
        """Whether the working size differs from the box's own."""
        return (self.working_height, self.working_width) != (self.height, self.width)


@dataclass(frozen=True)
class Shot:
    """Frames ``start`` to ``stop`` (exclusive) without a cut, and the regions to compute in them."""

    start: int
    stop: int
    regions: tuple[Region, ...]
    all_hole: bool = False
    """The hole covers every pixel of every frame: nothing is known."""


@dataclass(frozen=True)
class Plan:
    """Everything to compute for one clip.

    Attributes:
        shots: in order, without gaps.
        hole_frames: how many frames have a hole.
    """

    shots: tuple[Shot, ...]
    hole_frames: int

    @property
    def all_hole(self) -> bool:
        """Whether nothing at all is known."""
        return all(shot.all_hole for shot in self.shots)

    @property
    def frames(self) -> int:
        """Frames of the clip."""
        return self.shots[-1].stop


def make_plan(masks: Iterable[NDArray[np.uint8]], frames: int, cuts: Sequence[int] = ()) -> Plan:
    """Scan the masks once and decide what to compute. Memory does not grow with the frame count.

    Args:
        masks: (H, W) uint8 a frame, nonzero in the hole. A repeated array object is scanned once.
        frames: frames of the clip.
        cuts: first frame of every shot but the first.

    Raises:
        InputError: no frames, or another number of masks than frames.
    """
    if frames < 1:
        raise InputError(f"clip: expected at least one frame, got {frames}")
    bounds = sorted({0, *(cut for cut in cuts if 0 < cut < frames), frames})
    remaining, shots, scanned, hole_frames = iter(masks), [], 0, 0
    for start, stop in pairwise(bounds):
        scan = _HoleScan()
        for mask in islice(remaining, stop - start):
            scan.add(mask)
            scanned += 1
        shots.append(Shot(start, stop, scan.regions(), scan.all_hole))
        hole_frames += scan.hole_frames
    if scanned < frames or next(remaining, None) is not None:
        came = scanned if scanned < frames else f"more than {frames}"
        raise InputError(f"mask: expected one for each of the clip's {frames} frames, got {came}")
    return Plan(tuple(shots), hole_frames)


def whole_region(
    height: int, width: int, area: tuple[int, int, int, int] | None, thickness: int
) -> Region:
    """One region for holes that are not known yet.

    Args:
        height: of the frames.
        width: of the frames.
        area: x, y, width and height of the part where holes may be; ``None``: everywhere.
        thickness: of the thickest hole to come, in pixels.

    Raises:
        InputError: an area that is not wholly inside the frame, or a thickness below 1.
    """
    x, y, w, h = area or (0, 0, width, height)
    if min(x, y) < 0 or min(w, h) < 1 or x + w > width or y + h > height:
        raise InputError(
            f"area: expected a part of the frame, which is {width} x {height}, got {area}"
        )
    if thickness < 1:
        raise InputError(f"thickness: expected at least 1 pixel, got {thickness}")
    scale = min(1.0, WORKING_HOLE / thickness, (WORKING_PIXELS / (h * w)) ** 0.5)
    return Region(y, x, h, w, *(max(1, round(side * scale)) for side in (h, w)))


@dataclass
class _HoleScan:
    """The union of a shot's holes, and how thick the hole gets at each pixel."""

    union: NDArray[np.uint8] | None = None
    radius: NDArray[np.float32] | None = None
    last: NDArray[np.uint8] | None = None
    last_filled: int = 0
    hole_frames: int = 0
    all_hole: bool = True

    def add(self, mask: NDArray[np.uint8]) -> None:
        if mask is not self.last:
            self.last, self.last_filled = mask, int(np.count_nonzero(mask))
            if self.last_filled:
                self._merge((mask != 0).astype(np.uint8))
        self.hole_frames += self.last_filled > 0
        self.all_hole &= self.last_filled == mask.size

    def _merge(self, hole: NDArray[np.uint8]) -> None:
        radius = _radius(hole)
        if self.union is None or self.radius is None:
            self.union, self.radius = hole, radius
        else:
            np.maximum(self.union, hole, out=self.union)
            np.maximum(self.radius, radius, out=self.radius)

    def regions(self) -> tuple[Region, ...]:
        if self.union is None or self.radius is None:
            return ()
        count, _, stats, _ = cv2.connectedComponentsWithStats(self.union, connectivity=8)
        height, width = self.union.shape
        boxes = []
        for left, top, w, h, _ in stats[1:count].tolist():
            scale = self._scale(top, left, h, w)
            margin = round(CONTEXT / scale)
            boxes.append(
                (
                    max(0, top - margin),
                    max(0, left - margin),
                    min(height, top + h + margin),
                    min(width, left + w + margin),
                )
            )
        return tuple(
            self._region(top, left, bottom - top, right - left)
            for top, left, bottom, right in _merge_boxes(boxes)
        )

    def _scale(self, top: int, left: int, height: int, width: int) -> float:
        assert self.radius is not None
        thickness = 2 * float(self.radius[top : top + height, left : left + width].max())
        return min(1.0, WORKING_HOLE / thickness)

    def _region(self, top: int, left: int, height: int, width: int) -> Region:
        scale = min(
            self._scale(top, left, height, width), (WORKING_PIXELS / (height * width)) ** 0.5
        )
        if scale == 1.0:
            return Region(top, left, height, width, height, width)
        working = (max(1, round(side * scale)) for side in (height, width))
        return Region(top, left, height, width, *working)


def thickness_of(mask: NDArray[np.uint8]) -> float:
    """Of the thickest part of a hole (H, W), nonzero in it, in pixels; 0 without a hole."""
    return 2 * float(_radius((mask != 0).astype(np.uint8)).max())


def _radius(hole: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far each pixel of the hole is from the next known one."""
    # A border of known pixels, so that a hole at the frame's edge has a thickness too.
    framed = cv2.copyMakeBorder(hole, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    return cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1].astype(np.float32)


def _merge_boxes(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Join boxes (top, left, bottom, right) that overlap until none do."""
    merged: list[tuple[int, int, int, int]] = []
    for box in boxes:
        pending = box
        while True:
            other = next((o for o in merged if _overlap(o, pending)), None)
            if other is None:
                break
            merged.remove(other)
            pending = (
                min(other[0], pending[0]),
                min(other[1], pending[1]),
                max(other[2], pending[2]),
                max(other[3], pending[3]),
            )
        merged.append(pending)
    return sorted(merged)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
