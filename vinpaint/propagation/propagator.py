# SPDX-License-Identifier: Apache-2.0
"""The stage before the networks: what other frames have seen is carried into the hole."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.propagation.completion import CONTEXT_PAIRS, FlowCompleter
from vinpaint.propagation.flow import FlowEstimator, dis_flow
from vinpaint.propagation.track import Box, CarriedCrop, Track
from vinpaint.video.windows import Plan, Shot

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
        self._reach = reach
        self._flow = flow or dis_flow
        self._completer = completer or FlowCompleter()

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
        executor = ThreadPoolExecutor(2, thread_name_prefix="flow")
        try:
            for shot in plan.shots:
                frames = _frames_of(pairs, shot, plan)
                if not shot.regions or shot.all_hole or shot.stop - shot.start == 1:
                    yield from (_as_it_was(image, mask) for image, mask in frames)
                else:
                    yield from self._carry_shot(frames, shot, executor)
        finally:
            # Flow that nobody waits for is not computed.
            executor.shutdown(cancel_futures=True)

    def _carry_shot(
        self,
        frames: Iterator[tuple[NDArray[Any], NDArray[np.uint8]]],
        shot: Shot,
        executor: ThreadPoolExecutor,
    ) -> Iterator[Carried]:
        waiting: deque[tuple[NDArray[Any], NDArray[np.uint8]]] = deque()
        tracks: list[Track] = []
        boxes: list[Box] = []
        start = shot.start
        reach = self._reach
        for index, (image, mask) in enumerate(frames, shot.start):
            if not tracks:
                reach = min(reach, affordable_reach(image.nbytes + mask.nbytes))
                tracks = [
                    Track(
                        region.box,
                        mask.shape,
                        flow=self._flow,
                        completer=self._completer,
                        reach=reach,
                        executor=executor,
                    )
                    for region in shot.regions
                ]
                boxes = [track.box for track in tracks]
            waiting.append((image, mask))
            for track in tracks:
                track.push(index, image, mask)
            ended = index + 1 == shot.stop
            while start < shot.stop and (
                ended or len(waiting) == CHUNK_FRAMES + reach + CONTEXT_PAIRS
            ):
                stop = min(start + CHUNK_FRAMES, shot.stop)
                for crops in zip(*(track.carry(start, stop) for track in tracks), strict=True):
                    yield _put_back(*waiting.popleft(), zip(boxes, crops, strict=True))
                for track in tracks:
                    track.forget(stop - reach)
                start = stop


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
