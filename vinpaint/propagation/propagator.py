# SPDX-License-Identifier: Apache-2.0
"""The stage before the networks: what other frames have seen is carried into the hole."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.propagation.completion import CONTEXT_PAIRS, FlowCompleter
from vinpaint.propagation.flow import FlowEstimator, dis_flow
from vinpaint.propagation.track import Box, CarriedCrop, Track
from vinpaint.video.windows import Plan, Region, Shot

REACH = 48
"""Frames that a pixel may be carried from, to either side."""

CHUNK_FRAMES = 16
"""Frames carried at a time."""

BUFFER_BYTES = 1 << 30
"""Where the frames that are held would take more than this, the reach is made shorter, down to one frame. Each is counted
twice: as a frame that waits, and as a source, of which there is a copy of the hole's neighbourhood."""


class Carried(NamedTuple):
    """One frame after propagation.

    Attributes:
        image: (H, W, 3), of the clip's dtype, with what was carried in the hole.
        mask: (H, W), of the clip's dtype, nonzero in what remains of the hole.
        confidence: (H, W) float32: 1 for known pixels, 0 for what remains; for a carried pixel the share of it that is
            believed. The rest of it is a smooth fill of the frame itself.
    """

    image: NDArray[Any]
    mask: NDArray[np.uint8]
    confidence: NDArray[np.float32]


class Propagator:
    """Carries pixels that other frames of a shot have seen into the hole.

    A pixel of the hole is followed along the flow, to the past and to the future, until it comes out of the hole; its
    colour is fetched from there at once, whatever the distance. The flow inside the hole is completed from the flow
    around it. Pixels that come out nowhere within reach remain.

    Args:
        reach: frames that a pixel may be carried from, to either side, at least 1; less where frames are so large that
            those held would take more than a gigabyte.
        flow: between two gray pictures (h, w) uint8, (h, w, 2) float32, in pixels; called from two threads. ``None``:
            OpenCV's DIS.
        completer: of the flow inside the hole; ``None``: the shipped network.

    Raises:
        InputError: a reach below 1.

    Example::

        for image, mask, confidence in Propagator()(zip(frames, masks), plan):
            ...
    """

    def __init__(
        self,
        *,
        reach: int = REACH,
        flow: FlowEstimator | None = None,
        completer: FlowCompleter | None = None,
    ) -> None:
        if reach < 1:
            raise InputError(f"reach: expected at least 1 frame, got {reach}")
        self.reach = reach
        self.flow = flow or dis_flow
        self.completer = completer or FlowCompleter()

    def __call__(
        self, clip: Iterable[tuple[NDArray[Any], NDArray[np.uint8]]], plan: Plan
    ) -> Generator[Carried, None, None]:
        """Carry through a stream of frames; memory does not grow with their number.

        Args:
            clip: a frame and its mask at a time: (H, W, 3) uint8 or uint16, and (H, W) uint8, nonzero in the hole.
            plan: shots and regions, made from the same masks; nothing is carried across a cut.

        Yields:
            The frames in order; the same arrays where nothing was carried.

        Raises:
            InputError: the clip has fewer frames than the plan, or the flow another size than its pictures.
        """
        pairs = iter(clip)
        for shot in plan.shots:
            frames = _frames_of(pairs, shot, plan)
            if not shot.regions or shot.all_hole or shot.stop - shot.start == 1:
                yield from (_as_it_was(image, mask) for image, mask in frames)
                continue
            with closing(self.stream(shot.regions)) as stream:
                for image, mask in frames:
                    yield from stream.push(image, mask)
                yield from stream.flush()

    def stream(self, regions: Sequence[Region], *, lookahead: int | None = None) -> CarryStream:
        """Carry through frames that are pushed, all of one shot and size.

        Args:
            regions: where the holes are, at least one.
            lookahead: frames that a frame waits for, and no more than these are looked at; ``None``: as many as there
                are of use, in chunks.
        """
        return CarryStream(self, regions, lookahead)


class CarryStream:
    """One shot through a :class:`Propagator`, a frame at a time; close it when it is done with."""

    def __init__(
        self, propagator: Propagator, regions: Sequence[Region], lookahead: int | None
    ) -> None:
        self._propagator, self._regions = propagator, regions
        self._lookahead = lookahead
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="flow")
        self._tracks: list[Track] = []
        self._waiting: deque[tuple[NDArray[Any], NDArray[np.uint8]]] = deque()
        self._came = self._done = self._reach = 0

    def push(self, image: NDArray[Any], mask: NDArray[np.uint8]) -> Iterator[Carried]:
        """Take in the next frame; what is finished by it, to be used up before the next."""
        if not self._tracks:
            self._begin(image, mask)
        for track in self._tracks:
            track.push(self._came, image, mask)
        self._waiting.append((image, mask))
        self._came += 1
        chunk, ahead = CHUNK_FRAMES, self._reach + CONTEXT_PAIRS
        if self._lookahead is not None:
            chunk, ahead = 1, self._lookahead
        return self._carry(chunk) if len(self._waiting) == chunk + ahead else iter(())

    def flush(self) -> Iterator[Carried]:
        """The frames that are still due when no more come."""
        while self._waiting:
            yield from self._carry(min(CHUNK_FRAMES, len(self._waiting)))

    def close(self) -> None:
        """Let go of everything; flow that nobody waits for is not computed."""
        self._executor.shutdown(cancel_futures=True)

    def _begin(self, image: NDArray[Any], mask: NDArray[np.uint8]) -> None:
        self._reach = min(self._propagator.reach, affordable_reach(image.nbytes + mask.nbytes))
        self._tracks = [
            Track(
                region.box,
                mask.shape,
                flow=self._propagator.flow,
                completer=self._propagator.completer,
                reach=self._reach,
                executor=self._executor,
            )
            for region in self._regions
        ]

    def _carry(self, count: int) -> Iterator[Carried]:
        start, stop = self._done, self._done + count
        boxes = [track.box for track in self._tracks]
        for crops in zip(*(track.carry(start, stop) for track in self._tracks), strict=True):
            yield _put_back(*self._waiting.popleft(), zip(boxes, crops, strict=True))
        for track in self._tracks:
            track.forget(stop - self._reach)
        self._done = stop


def affordable_reach(frame_bytes: int) -> int:
    """How far the reach may be for frames of so many bytes, mask included."""
    held = BUFFER_BYTES // (2 * frame_bytes)
    return max(1, (held - CHUNK_FRAMES - CONTEXT_PAIRS) // 2)


def _frames_of(
    pairs: Iterator[tuple[NDArray[Any], NDArray[np.uint8]]], shot: Shot, plan: Plan
) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
    for index in range(shot.start, shot.stop):
        pair = next(pairs, None)
        if pair is None:
            raise InputError(f"clip: expected the plan's {plan.frames} frames, got {index}")
        yield pair


def _as_it_was(image: NDArray[Any], mask: NDArray[np.uint8]) -> Carried:
    return Carried(image, mask, (mask == 0).astype(np.float32))


def _put_back(
    image: NDArray[Any], mask: NDArray[np.uint8], crops: Iterable[tuple[Box, CarriedCrop]]
) -> Carried:
    carried = [(box, crop) for box, crop in crops if crop.carried]
    if not carried:
        return _as_it_was(image, mask)
    picture, remaining = image.copy(), mask.copy()
    confidence = (mask == 0).astype(np.float32)
    for box, crop in carried:
        # The boxes of two regions may overlap, their holes do not.
        taken = (mask[box] != 0) & ~crop.remaining
        picture[box][taken] = crop.picture[taken]
        remaining[box][taken] = 0
        confidence[box][taken] = crop.confidence[taken]
    return Carried(picture, remaining, confidence)
