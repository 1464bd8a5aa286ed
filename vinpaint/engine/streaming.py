# SPDX-License-Identifier: Apache-2.0
"""One region of a stream through a graph that takes a step a frame: an engine, or the operators captured on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vinpaint.engine.captured import CapturedRun, Execute
from vinpaint.engine.export import interface
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
        painter: with a 3DCN. One of engines takes pixels and masks as bytes; vinpaint's own is for regions that are not
            resized, and loses nothing.
        region: of the frames.
        lookahead: frames that the networks wait for.
    """

    def __init__(self, painter: Painter, region: Region, lookahead: int) -> None:
        self.region = region
        self._painter = painter
        size = region.working_height, region.working_width
        if isinstance(painter, EnginePainter):
            engine = painter.engine(*size, lookahead)
            assert painter.model.completion is not None, "checked by Streamer"
            step = CompletionStep(painter.model.completion, waits(lookahead))
            self._run: Step = engine
            blank = blank_state(step, painter.model, *size, dtype=engine.dtype)
            self._inputs = graph_bytes
        else:
            graph = operators_graph(painter, lookahead)
            self._run = captured(graph, painter.device, *size)
            blank, step = graph.blank(*size), graph.step
            self._inputs = _pixels_and_shares
        self._blank = [frames.to(painter.device) for frames in blank]
        self._clock = Clock(step.delays)
        self._waiting: deque[_Late] = deque()
        self.reset()

    def reset(self) -> None:
        """Forget the clip before."""
        self._state = self._blank
        self._clock.reset()
        self._waiting.clear()

    def push(self, frame: Given) -> list[Image | None]:
        """The next frame; what is finished by it: the region with its hole filled, ``None`` without a hole."""
        with torch.inference_mode():
            clip = self._painter.working_clip([frame], self.region)
            pixels, mask = (part[0] for part in self._inputs(clip))
            self._waiting.append(_Late(frame, clip, pixels, mask))
            return self._advance(pixels, mask, self._clock.tick())

    def flush(self) -> list[Image | None]:
        """What is still due when no more frames come."""
        finished = []
        with torch.inference_mode():
            for live in self._clock.end():
                newest = self._waiting[-1]
                finished += self._advance(newest.pixels, newest.mask, live)
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


def _pixels_and_shares(clip: Clip) -> tuple[Tensor, Tensor]:
    """Frames (1, F, h, w, 3) as bytes and what is unknown of them (1, F, h, w) as float32."""
    return clip.frames, clip.mask.gt(0).float() if clip.unknown is None else clip.unknown


def operators_graph(painter: Painter, lookahead: int) -> StreamGraph:
    """A stream's step by vinpaint's own operators."""
    graph = StreamGraph(painter.model, lookahead=lookahead, dtype=painter.dtype, plain=False)
    return graph.to(painter.device).eval()


def captured(graph: StreamGraph, device: torch.device, height: int, width: int) -> Step:
    """The step for frames of one size; on a GPU as one CUDA graph."""
    if device.type != "cuda":
        return graph

    def make() -> tuple[list[Tensor], Execute]:
        frame = torch.zeros((1, height, width, 3), dtype=torch.uint8, device=device)
        mask = torch.zeros((1, height, width), device=device)
        live = torch.ones(len(graph.step.delays), dtype=torch.uint8, device=device)
        state = [kept.to(device) for kept in graph.blank(height, width)]
        inputs = [frame, mask, frame.clone(), mask.clone(), live, *state]
        return inputs, lambda: graph(*inputs)

    return CapturedRun(device, interface(stream=True)[0], make)
