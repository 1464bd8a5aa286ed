# SPDX-License-Identifier: Apache-2.0
"""Frames that come one by one: each goes out a stated number of frames later, with its hole filled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vinpaint.devices import return_free_memory
from vinpaint.errors import InputError
from vinpaint.inpainting import Inpainter
from vinpaint.nn.streaming import ORDER, StreamingCompletion, waits
from vinpaint.painting import Given, Image, Mask, Painter
from vinpaint.propagation.propagator import CarryStream
from vinpaint.video.windows import (
    WORKING_HOLE,
    Region,
    make_plan,
    thickness_of,
    whole_region,
)

FULL_LOOKAHEAD = len(ORDER)
"""Frames after which 3DCN has seen all that it ever looks at."""

TIDY_FRAMES = 64
"""Frames after which free memory goes back to the system, which the heap's holes would keep."""

Box = tuple[int, int, int, int]


class Streamer:
    """Fills the hole of a stream: each frame costs the work of one, memory is bounded, the latency is chosen.

    With ``propagate="off"`` and a look-ahead of 13 frames the result is that of the whole clip at once; with less
    look-ahead layers of 3DCN take what has not come yet for what came last. With propagation the look-ahead is its own:
    what comes out of the hole within it is carried back, what was seen before is carried forward, and 3DCN does not wait.

    Args:
        inpainter: what fills.
        lookahead: frames that a frame waits for.
        mask: (H, W), nonzero in the hole: of every frame that is pushed without one, such as a logo's.
        area: x, y, width and height of the part of the frame where holes may be; only it is looked at. By default the
            neighbourhood of ``mask``, or without it the whole frame.
        thickness: of the thickest hole that may come, in pixels: thicker ones than 48 are computed at a smaller size.
            ``mask`` says its own; without it 48 by default.

    Raises:
        InputError: a negative look-ahead, networks that cannot stream, or a mask that covers everything.

    Example::

        streamer = Streamer(Inpainter.from_pretrained(), lookahead=4, mask=logo)
        for frame in camera:
            for finished in streamer.push(frame):
                show(finished)
        for finished in streamer.flush():
            show(finished)
    """

    def __init__(
        self,
        inpainter: Inpainter,
        *,
        lookahead: int = FULL_LOOKAHEAD,
        mask: Mask | None = None,
        area: Box | None = None,
        thickness: int | None = None,
    ) -> None:
        if lookahead < 0:
            raise InputError(f"lookahead: expected 0 frames or more, got {lookahead}")
        net = inpainter.model.completion
        if net is not None and net.temporal_stride:
            raise InputError("streaming: expected a 3DCN without strides over frames")
        if net is None and type(inpainter.painter) is not Painter:
            raise InputError("streaming: expected networks with a 3DCN for an engine")
        self.lookahead = lookahead
        self._inpainter = inpainter
        self._mask = None if mask is None else _as_mask(mask)
        if self._mask is not None and self._mask.all():
            raise InputError("mask: expected some known pixels, got a hole that covers every pixel")
        if self._mask is not None and thickness is not None:
            raise InputError("thickness: expected none beside a mask, which says its own")
        self._area, self._thickness = area, thickness
        self._shot: _Shot | None = None
        self._kept: _Kept = {}

    def push(self, frame: Image, mask: Mask | None = None) -> list[Image]:
        """Take in the next frame, of which a copy is kept.

        Args:
            frame: (H, W, 3), uint8 or uint16, red green blue; of the size and dtype of the others.
            mask: (H, W), uint8 or bool, nonzero in the hole; ``None``: the streamer's own.

        Returns:
            The frames that are finished now, in order: none at first, then one a call.

        Raises:
            InputError: a frame or a mask of another size or dtype, no mask at all, or a hole outside the area.
        """
        hole = self._mask if mask is None else _as_mask(mask)
        if hole is None:
            raise InputError("mask: expected one with the frame or of the streamer, got none")
        _check_frame(frame, hole)
        shot = self._shot
        if shot is None:
            regions = self._regions(frame)
            shot = _Shot(self._inpainter, self.lookahead, regions, frame, self._kept)
        shot.check(frame, hole)
        self._shot = None  # unless all goes well
        finished = shot.push(frame.copy(), hole.copy())
        self._shot = shot
        return finished

    def flush(self) -> list[Image]:
        """The frames that are still due when no more come, or at a cut: the next frame begins another shot."""
        if self._shot is None:
            return []
        shot, self._shot = self._shot, None
        return shot.flush()

    def _regions(self, frame: Image) -> tuple[Region, ...]:
        height, width = frame.shape[:2]
        if self._mask is not None and self._area is None:
            return make_plan([self._mask], 1).shots[0].regions
        thickness = WORKING_HOLE if self._thickness is None else self._thickness
        if self._mask is not None:
            thickness = max(1, round(thickness_of(self._mask)))
        return (whole_region(height, width, self._area, thickness),)


class _Shot:
    """From a first frame to a flush."""

    def __init__(
        self,
        inpainter: Inpainter,
        lookahead: int,
        regions: Sequence[Region],
        first: Image,
        kept: _Kept,
    ) -> None:
        self._size, self._dtype = first.shape, first.dtype
        self._inside = np.zeros(first.shape[:2], bool)
        for region in regions:
            self._inside[region.box] = True
        self._inpainter = inpainter
        self._carrying: CarryStream | None = None
        if inpainter.propagator is not None and regions:
            self._carrying = inpainter.propagator.stream(regions, lookahead=lookahead)
            lookahead = 0  # measured: a frame is worth more to propagation
        depth = str(first.dtype)
        now = {
            (region, depth): kept.get((region, depth))
            or _region_stream(inpainter, region, lookahead, first)
            for region in regions
        }
        kept.clear()
        kept.update(now)
        self._networks = list(now.values())
        for network in self._networks:
            network.reset()  # whatever became of the shot before
        self._waiting: deque[Given] = deque()
        self._came = 0

    def check(self, frame: Image, mask: Mask) -> None:
        if frame.shape != self._size or frame.dtype != self._dtype:
            raise InputError(
                f"frame: expected {self._size} {self._dtype} like the first, got {frame.shape} {frame.dtype}; "
                "flush before frames of another size"
            )
        if mask[~self._inside].any():
            raise InputError("mask: expected no hole outside the area that the streamer looks at")

    def push(self, frame: Image, mask: Mask) -> list[Image]:
        self._came += 1
        if self._came % TIDY_FRAMES == 0:
            return_free_memory()
        if self._carrying is None:
            return self._complete([Given(frame, mask)])
        return self._complete(map(self._inpainter.given, self._carrying.push(frame, mask)))

    def flush(self) -> list[Image]:
        finished = []
        if self._carrying is not None:
            carried = map(self._inpainter.given, self._carrying.flush())
            finished = self._complete(carried)
            self._carrying.close()
        patches = [network.flush() for network in self._networks]
        return finished + [self._finish(part) for part in zip(*patches, strict=True)]

    def _complete(self, frames: Iterable[Given]) -> list[Image]:
        finished = []
        for frame in frames:
            if not self._networks:
                finished.append(frame.image)
                continue
            self._waiting.append(frame)
            patches = [network.push(frame) for network in self._networks]
            finished += [self._finish(part) for part in zip(*patches, strict=True)]
        return finished

    def _finish(self, patches: Sequence[Image | None]) -> Image:
        image = self._waiting.popleft().image
        if all(patch is None for patch in patches):
            return image
        image = image.copy()
        for network, patch in zip(self._networks, patches, strict=True):
            if patch is not None:
                image[network.region.box] = patch
        return image


class _RegionStream(Protocol):
    """The networks in one region."""

    region: Region

    def push(self, frame: Given) -> list[Image | None]:
        """The next frame; what is finished by it: the region with its hole filled, ``None`` without a hole."""

    def flush(self) -> list[Image | None]:
        """What is still due when no more frames come."""

    def reset(self) -> None:
        """Forget the shot before."""


_Kept = dict[tuple[Region, str], _RegionStream]
"""Those of the last shot: setting one up may take longer than a frame does."""


def _region_stream(
    inpainter: Inpainter, region: Region, lookahead: int, first: Image
) -> _RegionStream:
    """Through an engine, or the operators; these as a CUDA graph where its bytes lose nothing."""
    painter = inpainter.painter
    native = type(painter) is Painter
    captured = painter.device.type == "cuda" and first.dtype == np.uint8 and not region.resized
    if painter.model.completion is None or (native and not captured):
        return _Networks(inpainter, region, lookahead)
    from vinpaint.engine.streaming import EngineStream

    return EngineStream(painter, region, lookahead)


class _Networks:
    """The operators, one after the other, on one region."""

    def __init__(self, inpainter: Inpainter, region: Region, lookahead: int) -> None:
        self.region = region
        self._painter = inpainter.painter
        completion = inpainter.model.completion
        self._completion = None
        if completion is not None:
            self._completion = StreamingCompletion(completion, waits(lookahead))
        self._waiting: deque[tuple[Given, Tensor]] = deque()

    def reset(self) -> None:
        """Forget the shot before."""
        self._waiting.clear()
        if self._completion is not None:
            self._completion.reset()

    def push(self, frame: Given) -> list[Image | None]:
        """The next frame; what is finished by it: the region with its hole filled, ``None`` without a hole."""
        if self._completion is None:
            return [self._paint(frame, None)]
        with torch.inference_mode():
            x = self._painter.completion_input([frame], self.region)
            self._waiting.append((frame, x))
            return self._guided(self._completion.push(x))

    def flush(self) -> list[Image | None]:
        if self._completion is None:
            return []
        with torch.inference_mode():
            return self._guided(self._completion.flush())

    def _guided(self, outputs: Iterable[Tensor]) -> list[Image | None]:
        finished = []
        for output in outputs:
            frame, x = self._waiting.popleft()
            finished.append(self._paint(frame, (output, x)))
        return finished

    def _paint(self, frame: Given, completed: tuple[Tensor, Tensor] | None) -> Image | None:
        if not frame.mask[self.region.box].any():
            return None
        with torch.inference_mode():
            guidance = None if completed is None else self._painter.model.guide_by(*completed)[1]
            (patch,) = self._painter.paint([frame], guidance, self.region)
        return patch


def _as_mask(mask: Any) -> Mask:
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
        got = f"{mask.shape} {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError(f"mask: expected uint8 or bool (H, W), got {got}")
    return mask.view(np.uint8)


def _check_frame(frame: Any, mask: Mask) -> None:
    if not isinstance(frame, np.ndarray):
        raise InputError(f"frame: expected a NumPy array, got {type(frame).__name__}")
    if frame.dtype not in (np.uint8, np.uint16) or frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(
            f"frame: expected uint8 or uint16 (H, W, 3), got {frame.dtype} {frame.shape}"
        )
    if frame.shape[:2] != mask.shape:
        raise InputError(f"mask: expected the frame's {frame.shape[:2]}, got {mask.shape}")
