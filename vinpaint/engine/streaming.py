# SPDX-License-Identifier: Apache-2.0
"""One region of a stream through a graph that takes a step a frame: an engine, or the operators captured on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vinpaint.engine.captured import CapturedRun
from vinpaint.engine.graph import StreamGraph, blank_state
from vinpaint.engine.painting import EnginePainter, completed_bytes, graph_bytes, on_device
from vinpaint.nn.streaming import Clock, CompletionStep, waits
from vinpaint.painting import NO_NUMBERS, Clip, Given, Image, Painter
from vinpaint.video.windows import Region

Step = Callable[..., tuple[Tensor, ...]]
"""As :meth:`vinpaint.engine.graph.StreamGraph.forward`."""


class _Late(NamedTuple):
    """A frame that is not finished yet, and the bytes of it that the graph takes."""

    frame: Given
    clip: Clip
    pixels: Tensor
    mask: Tensor


class EngineStream:
    """The networks in one region of a stream.

    Args:
        painter: with a 3DCN.
        region: of the frames.
        lookahead: frames that the networks wait for.
    """

    def __init__(self, painter: Painter, region: Region, lookahead: int) -> None:
        self.region = region
        self._painter = painter
        completion = painter.model.completion
        assert completion is not None, "checked by Streamer"
        if isinstance(painter, EnginePainter):
            engine = painter.engine(region.working_height, region.working_width, lookahead)
            run: Step = engine
            dtype = engine.dtype
        else:
            run, dtype = captured_operators(painter, region, lookahead), painter.dtype
        step = CompletionStep(completion, waits(lookahead))
        size = region.working_height, region.working_width
        blank = blank_state(step, painter.model, *size, dtype=dtype)
        self._run = run
        self._blank = [frames.to(painter.device) for frames in blank]
        self._state = self._blank
        self._clock = Clock(step.delays)
        self._waiting: deque[_Late] = deque()

    def push(self, frame: Given) -> list[Image | None]:
        """The next frame; what is finished by it: the region with its hole filled, ``None`` without a hole."""
        with torch.inference_mode():
            clip = self._painter.working_clip([frame], self.region)
            pixels, mask = (part[0] for part in graph_bytes(clip))
            self._waiting.append(_Late(frame, clip, pixels, mask))
            return self._advance(pixels, mask, self._clock.tick())

    def flush(self) -> list[Image | None]:
        """What is still due when no more frames come; the next one begins another clip."""
        finished = []
        with torch.inference_mode():
            for live in self._clock.end():
                newest = self._waiting[-1]
                finished += self._advance(newest.pixels, newest.mask, live)
        self._state = self._blank
        return finished

    def _advance(self, pixels: Tensor, mask: Tensor, live: list[bool]) -> list[Image | None]:
        late = self._waiting[0]
        alive = torch.tensor(live, dtype=torch.uint8).to(self._painter.device)
        with on_device(self._painter.device):
            completed, invalid, *self._state = self._run(
                pixels, mask, late.pixels, late.mask, alive, *self._state
            )
        if not live[-1]:
            return []
        self._waiting.popleft()
        if not late.frame.mask[self.region.box].any():
            return [None]
        if invalid.item():
            raise ArithmeticError(NO_NUMBERS)
        return list(completed_bytes(self._painter, [late.frame], late.clip, completed, self.region))


def captured_operators(painter: Painter, region: Region, lookahead: int) -> Step:
    """vinpaint's own operators for one region; on a GPU as one CUDA graph a frame."""
    graph = StreamGraph(painter.model, lookahead=lookahead, dtype=painter.dtype, plain=False)
    graph = graph.to(painter.device).eval()
    if painter.device.type != "cuda":
        return graph
    height, width = region.working_height, region.working_width
    frame = torch.zeros((1, height, width, 3), dtype=torch.uint8, device=painter.device)
    mask = torch.zeros((1, height, width), dtype=torch.uint8, device=painter.device)
    live = torch.ones(len(graph.step.delays), dtype=torch.uint8, device=painter.device)
    state = [kept.to(painter.device) for kept in graph.blank(height, width)]
    inputs = [frame, mask, frame.clone(), mask.clone(), live, *state]
    return CapturedRun(inputs, lambda: graph(*inputs))
