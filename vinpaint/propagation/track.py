# SPDX-License-Identifier: Apache-2.0
"""One neighbourhood of the hole through one shot: its pictures, its motion, and what can be carried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.propagation.blending import (
    mixing_weights,
    sample,
    seam_correction,
    smooth_fill,
    trusted,
)
from vinpaint.propagation.completion import (
    OFFSETS,
    CompletedFlow,
    FlowCompleter,
    KnownFlow,
    known_flow,
)
from vinpaint.propagation.exposure import log_gain
from vinpaint.propagation.flow import Flow, FlowEstimator, Gray
from vinpaint.propagation.grid import any_in_cell, reduced
from vinpaint.propagation.pointers import Pointers, Walk
from vinpaint.video.images import eight_bit
from vinpaint.video.masks import dilated, reduced_hole

WORKING_PIXELS = 432 * 240
"""Motion is looked for on pictures of at most this many pixels: what the flow's network was trained on."""

STEP = 8
"""Sides of these pictures are multiples of it: two cells of the grid, which the network halves."""

RIM = 3
"""Pixels around the hole that are known and carried as well: what was there before shows how well carrying does."""

SPOILT = 8
"""Pixels around the hole whose flow is not believed: the flow's patches reach into the hole there."""


Box = tuple[slice, slice]  # rows, columns
Indices = NDArray[np.intp]


class CarriedCrop(NamedTuple):
    """A region of one frame.

    Attributes:
        picture: (h, w, 3), with the carried pixels in.
        remaining: (h, w), the hole without them.
        confidence: (h, w) float32, 1 outside the hole, 0 where nothing was carried.
        carried: whether anything was.
    """

    picture: NDArray[Any]
    remaining: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    carried: bool = True


@dataclass
class _View:
    """The region in one frame, at its own size and at the working size."""

    picture: NDArray[Any]
    hole: NDArray[np.bool_]
    small: NDArray[np.uint8]
    small_hole: NDArray[np.bool_]
    wide: NDArray[np.bool_]  # the hole and its rim
    gray: Gray  # with the hole filled smoothly
    # On the grid:
    colours: NDArray[np.float32]
    light: NDArray[np.float32]  # ``gray`` in [0, 1]
    hidden: NDArray[np.bool_]  # ``small_hole``
    spoilt: NDArray[np.bool_]


class Track:
    """Carries pixels into the hole of one region.

    Attributes:
        box: rows and columns of the frame that the crops are of: the region, grown to a multiple of :data:`STEP` where
            the frame has room.

    Args:
        region: rows and columns of the region.
        shape: height and width of the frames.
        flow: between neighbouring pictures.
        completer: of the flow inside the hole.
        reach: frames that a source may be away.
        executor: runs the flow's two ways side by side.
    """

    def __init__(
        self,
        region: Box,
        shape: tuple[int, int],
        *,
        flow: FlowEstimator,
        completer: FlowCompleter,
        reach: int,
        executor: Executor,
    ) -> None:
        rows, columns = (_rounded_up(*side) for side in zip(region, shape, strict=True))
        self.box: Box = rows, columns
        self._flow, self._completer = flow, completer
        self._reach, self._executor = reach, executor
        height, width = rows.stop - rows.start, columns.stop - columns.start
        self._size = working_size(height, width)
        self._resized = self._size != (height, width)
        self._scale = np.array([width / self._size[1], height / self._size[0]], np.float32)
        self._views: dict[int, _View] = {}
        # Pair i is of the frames i and i + 1; there and back.
        self._pending: dict[int, tuple[Future[Any], Future[Any]] | None] = {}
        self._known: dict[int, tuple[KnownFlow, KnownFlow] | None] = {}
        self._completed: dict[int, tuple[CompletedFlow, CompletedFlow] | None] = {}
        self._gains: dict[int, NDArray[np.float64]] = {}

    def push(self, index: int, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
        """Take in the next frame of the shot."""
        self._views[index] = view = self._view(image[self.box], mask[self.box] != 0)
        before = self._views.get(index - 1)
        if before is None:
            return
        grays = before.gray, view.gray
        self._pending[index - 1] = None
        if before.wide.any() or view.wide.any():
            self._pending[index - 1] = (
                self._executor.submit(self._flow, *grays),
                self._executor.submit(self._flow, *grays[::-1]),
            )

    def carry(self, start: int, stop: int) -> Iterator[CarriedCrop]:
        """The frames ``start`` to ``stop`` (exclusive); each is asked for once, in order."""
        first = max(start - self._reach, min(self._views))
        last = min(stop - 1 + self._reach, max(self._views))
        for pair in range(first, last):
            self._complete(pair)
        holes = {index: self._views[index].wide for index in range(first, last + 1)}
        walks = [
            Walk(holes, partial(self._way, step=step), step=step, reach=self._reach)
            for step in (-1, 1)
        ]
        for index in range(start, stop):
            yield self._carried(index, [walk(index) for walk in walks])

    def forget(self, before: int) -> None:
        """Let go of frames that will not be asked for, neither themselves nor as a source."""
        for kept in (self._views, self._completed, self._gains):
            for index in [i for i in kept if i < before]:
                del kept[index]
        for index in [i for i in self._known if i < before + min(OFFSETS)]:
            del self._known[index]

    def _view(self, picture: NDArray[Any], hole: NDArray[np.bool_]) -> _View:
        small, small_hole = eight_bit(picture), hole
        if self._resized:
            size = self._size[::-1]
            small = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_AREA), np.uint8)
            small_hole = reduced_hole(hole, size)
        small = np.ascontiguousarray(small)
        gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        wide = spoilt = small_hole
        if small_hole.any():
            filled = smooth_fill(gray[..., None].astype(np.float32), small_hole)
            gray = filled[..., 0].round().astype(np.uint8)
            wide, spoilt = (dilated(small_hole.view(np.uint8), r) > 0 for r in (RIM, SPOILT))
        return _View(
            np.ascontiguousarray(picture),
            hole,
            small,
            small_hole,
            wide,
            gray,
            colours=reduced(small),
            light=reduced(gray) / np.float32(255),
            hidden=any_in_cell(small_hole),
            spoilt=any_in_cell(spoilt),
        )

    def _known_pair(self, pair: int) -> tuple[KnownFlow, KnownFlow] | None:
        if pair in self._pending:
            running = self._pending.pop(pair)
            self._known[pair] = None
            if running is not None:
                there, back = (self._reduced(future.result()) for future in running)
                views = self._views[pair], self._views[pair + 1]
                spoilt = views[0].spoilt | views[1].spoilt
                first, second = (
                    known_flow(*ways, spoilt, view.light, view.hidden)
                    for ways, view in zip(((there, back), (back, there)), views, strict=True)
                )
                self._known[pair] = first, second
        return self._known.get(pair)

    def _reduced(self, flow: Flow) -> Flow:
        if flow.shape != (*self._size, 2):
            raise InputError(
                f"flow: expected the shape {(*self._size, 2)} of its pictures, got {flow.shape}"
            )
        return reduced(flow)

    def _complete(self, pair: int) -> None:
        if pair in self._completed:
            return
        self._completed[pair] = None
        if self._known_pair(pair) is None:
            self._gains[pair + 1] = self._gains.get(pair, np.zeros(3))
            return
        around = {offset: self._known_pair(pair + offset) for offset in OFFSETS}
        there = [None if (p := around[offset]) is None else p[0] for offset in OFFSETS]
        back = [None if (p := around[-offset]) is None else p[1] for offset in OFFSETS]
        first, second = self._completer([there, back])
        self._completed[pair] = first, second
        earlier, later = self._views[pair], self._views[pair + 1]
        gain = log_gain(later.colours, ~later.spoilt, earlier.colours, ~earlier.spoilt, second.flow)
        self._gains[pair + 1] = self._gains.setdefault(pair, np.zeros(3)) + gain

    def _way(self, index: int, *, step: int) -> tuple[Flow, NDArray[np.float32]] | None:
        """The flow from a frame to the one ``step`` on, and its expected error."""
        ways = self._completed.get(index if step > 0 else index - 1)
        if ways is None:
            return None
        there = ways[0 if step > 0 else 1]
        return there.flow, there.error

    def _carried(self, index: int, candidates: Sequence[Pointers]) -> CarriedCrop:
        view = self._views[index]
        confidence = (~view.hole).astype(np.float32)
        weights, error = mixing_weights(index, candidates)
        trust = trusted(error)
        if not view.hole.any() or not trust.any():
            return CarriedCrop(view.picture, view.hole, confidence, carried=False)
        rows, columns = np.nonzero(view.wide)
        smalls = {i: v.small for i, v in self._views.items()}
        colours = self._mixed(index, smalls, candidates, weights)
        touched = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        known = view.small.astype(np.float32)
        carried, found = known.copy(), np.zeros(view.wide.shape, bool)
        carried[rows, columns] = colours
        found[rows, columns] = trust > 0
        rim = found & ~view.small_hole
        fill, correction = np.zeros_like(known), np.zeros_like(known)
        fill[touched] = smooth_fill(known[touched], view.small_hole[touched])
        correction[touched] = seam_correction(known[touched], carried[touched], rim[touched])
        if self._resized or view.picture.dtype != np.uint8:
            rows, columns, near = self._nearest(view)
            position = np.zeros(view.wide.shape, np.intp)
            position[np.nonzero(view.wide)] = np.arange(len(trust))
            of = position[near]
            pictures = {i: v.picture for i, v in self._views.items()}
            there = [self._own_size(c, of, (rows, columns), near) for c in candidates]
            colours = self._mixed(index, pictures, there, weights[:, of])
            colours *= 255 / np.iinfo(view.picture.dtype).max
            trust = trust[of]
            size = view.hole.shape[::-1]
            fill, correction = (
                np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), np.float32)
                for plane in (fill, correction)
            )
        chosen = (trust > 0) & view.hole[rows, columns]
        rows, columns, trust = rows[chosen], columns[chosen], trust[chosen]
        over = colours[chosen] + correction[rows, columns]
        # Where the whole region is hole there is no fill of the frame itself to fall back on.
        under = over if view.hole.all() else fill[rows, columns]
        picture, remaining = view.picture.copy(), view.hole.copy()
        picture[rows, columns] = _rounded(under + trust[:, None] * (over - under), picture.dtype)
        remaining[rows, columns] = False
        confidence[rows, columns] = trust
        return CarriedCrop(picture, remaining, confidence)

    def _mixed(
        self,
        index: int,
        pictures: Mapping[int, NDArray[Any]],
        candidates: Sequence[Pointers],
        weights: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The candidates' colours (n, 3), as bright as frame ``index``."""
        colours = np.zeros((weights.shape[1], 3), np.float32)
        for share, pointers in zip(weights, candidates, strict=True):
            colours += share[:, None] * sample(pictures, pointers, self._gains, index)
        return colours

    def _nearest(self, view: _View) -> tuple[Indices, Indices, tuple[Indices, Indices]]:
        """Rows and columns of the hole at its own size, and the working pixels that they are in."""
        rows, columns = np.nonzero(view.hole)
        across, down = self._scale
        near = ((rows + 0.5) / down).astype(np.intp), ((columns + 0.5) / across).astype(np.intp)
        return rows, columns, near

    def _own_size(
        self,
        pointers: Pointers,
        of: Indices,
        pixels: tuple[Indices, Indices],
        near: tuple[Indices, Indices],
    ) -> Pointers:
        """Pointers for pixels of the region's own size: of the working pixels, from middle to middle, and on from there.

        Args:
            of: which of ``pointers`` is each pixel's.
            pixels: rows and columns of the pixels.
            near: of their working pixels.
        """
        (rows, columns), (near_y, near_x) = pixels, near
        across, down = self._scale
        x = (pointers.x[of] - near_x) * across + columns
        y = (pointers.y[of] - near_y) * down + rows
        return Pointers(
            pointers.source[of], x.astype(np.float32), y.astype(np.float32), pointers.error[of]
        )


def working_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a region's motion is looked for: multiples of :data:`STEP`."""
    scale = min(1.0, (WORKING_PIXELS / (height * width)) ** 0.5)
    rows, columns = (max(STEP, round(side * scale / STEP) * STEP) for side in (height, width))
    return rows, columns


def _rounded_up(span: slice, length: int) -> slice:
    """Grown to a multiple of :data:`STEP`, if the frame's side is long enough."""
    size = -(-(span.stop - span.start) // STEP) * STEP
    if size > length:
        return span
    start = min(span.start, length - size)
    return slice(start, start + size)


def _rounded(colours: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of 0 to 255 in the range of ``dtype``."""
    most = np.iinfo(dtype).max
    return (colours * (most / 255)).round().clip(0, most).astype(dtype)
