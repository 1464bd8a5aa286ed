# SPDX-License-Identifier: Apache-2.0
"""Regions of frames through engines, in the place of the operators."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from vinpaint.engine import compiling
from vinpaint.engine.compiling import Backend, Engine
from vinpaint.engine.export import DTYPES, GraphPrecision
from vinpaint.engine.tensorrt import Progress
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter
from vinpaint.painting import NO_NUMBERS, Clip, Given, Image, Painter, unknown_bytes
from vinpaint.video.windows import Region

_LOGGER = logging.getLogger("vinpaint")

CHUNK_FRAMES = 32
"""Frames that an engine completes at a time, between those of its context."""


class EnginePainter(Painter):
    """The networks as engines of one runtime, one for each size of region, built when it is first met.

    Args:
        model: the networks; moved in place.
        device: the CPU for OpenVINO, a GPU for TensorRT.
        dtype: what to compute in.
        backend: the runtime.

    Raises:
        InputError: the runtime is not installed or cannot run on the device, or networks that it cannot have.
    """

    def __init__(
        self, model: VideoInpainter, device: torch.device, dtype: torch.dtype, backend: Backend
    ) -> None:
        compiling.check_device(backend, device)
        if model.config.temporal_stride:
            raise InputError(f"--backend {backend}: expected a 3DCN without strides over frames")
        self._backend: Backend = backend
        self._precision: GraphPrecision = next(n for n, value in DTYPES.items() if value == dtype)
        self._engines: dict[tuple[int, int, int | None], Engine] = {}
        super().__init__(model, device, torch.float32)  # the operators only prepare and composite

    def complete(
        self, window: Sequence[Given], wanted: Sequence[int], region: Region
    ) -> Iterator[Image]:
        """One region of the ``wanted`` frames of ``window`` with its hole filled, see :meth:`Painter.paint`."""
        rest = list(wanted)
        with torch.inference_mode():
            while rest:
                start = rest[0]
                now = [i for i in rest if i < start + CHUNK_FRAMES]
                rest = rest[len(now) :]
                frames = [window[i] for i in now]
                clip = self.working_clip(frames, region)
                filled = self._run(window, start, region)[[i - start for i in now]]
                yield from completed_bytes(self, frames, clip, filled, region)

    def _run(self, window: Sequence[Given], start: int, region: Region) -> Tensor:
        """The frames from ``start`` on, (F, h, w, 3) uint8; those that ``window`` lacks are anything."""
        context = self.model.halo
        first = max(0, start - context)
        around = window[first : start + CHUNK_FRAMES + context]
        clip = self.working_clip(around, region)
        before = first - (start - context)
        after = CHUNK_FRAMES + 2 * context - before - len(around)
        live = torch.zeros(before + len(around) + after, dtype=torch.uint8, device=self.device)
        live[before : before + len(around)] = 1
        frames, unknown = (_padded(part[0], before, after) for part in graph_bytes(clip))
        engine = self.engine(*unknown.shape[1:])
        with on_device(self.device):
            completed, invalid = engine(frames, unknown, live)
        if invalid.item():
            raise ArithmeticError(NO_NUMBERS)
        return completed

    def engine(self, height: int, width: int, lookahead: int | None = None) -> Engine:
        """For frames of this size: of clips, or with a ``lookahead`` of a stream."""
        key = height, width, lookahead
        engine = self._engines.get(key)
        if engine is None:
            length = CHUNK_FRAMES + 2 * self.model.halo
            told = _once(f"{self._backend}: building the engine for {width} x {height}, once")
            with on_device(self.device):
                path = compiling.compile(
                    self.model,
                    backend=self._backend,
                    frames=length if lookahead is None else None,
                    context=self.model.halo if lookahead is None else 0,
                    lookahead=lookahead,
                    height=height,
                    width=width,
                    precision=self._precision,
                    progress=told,
                )
                engine = self._engines[key] = compiling.load(path)
        return engine


def _once(line: str) -> Progress:
    """Says the line at the first phase of a build."""
    said: list[str] = []

    def told(*_: object) -> None:
        if not said:
            said.append(line)
            _LOGGER.warning(line)

    return told


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Engines are built for, and run on, the current card."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def completed_bytes(
    painter: Painter, frames: Sequence[Given], clip: Clip, filled: Tensor, region: Region
) -> Iterator[Image]:
    """``frames`` with the hole that a graph ``filled`` (F, h, w, 3) of their ``clip``, see :meth:`Painter.composited`."""
    completed = filled.permute(3, 0, 1, 2)[None].float() / 255  # (1, 3, F, h, w)
    x = completed
    if region.resized:  # what the networks added is told from the fill
        height, width = completed.shape[3:]
        x = painter.prepare(clip, reduced=False)[..., :height, :width]
    yield from painter.composited(frames, clip, x, completed, region)


def graph_bytes(clip: Clip) -> tuple[Tensor, Tensor]:
    """Frames (1, F, h, w, 3) and what is unknown of them (1, F, h, w), as :meth:`ClipGraph.forward` wants them."""
    frames = clip.frames
    if frames.dtype == torch.uint16:
        frames = ((frames.int() + 128) // 257).to(torch.uint8)
    if clip.unknown is None:
        return frames, (clip.mask != 0).to(torch.uint8) * 255
    return frames, unknown_bytes(clip.unknown)


def _padded(frames: Tensor, before: int, after: int) -> Tensor:
    """With so many frames of zeros before and after."""
    blank = frames.new_zeros
    rest = frames.shape[1:]
    return torch.cat([blank((before, *rest)), frames, blank((after, *rest))])
