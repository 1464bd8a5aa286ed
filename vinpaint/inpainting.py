# SPDX-License-Identifier: Apache-2.0
"""The main job: a clip with a hole in, the clip without it out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vinpaint.devices import (
    Precision,
    resolve_device,
    resolve_precision,
    return_free_memory,
)
from vinpaint.errors import InputError, InputWarning
from vinpaint.nn import VideoInpainter
from vinpaint.painting import Given, Image, Mask, Painter
from vinpaint.pretrained import load_pretrained
from vinpaint.propagation import Carried, Propagator
from vinpaint.video.windows import Plan, Region, Shot, make_plan

Clip = TypeVar("Clip", NDArray[Any], Tensor)
Propagate = Literal["auto", "off"]
Backend = Literal["native", "auto", "tensorrt", "tensorrt_rtx", "openvino"]
BACKENDS = get_args(Backend)

CHUNK_FRAMES = 32
"""Frames completed at a time, before the halo to either side is added."""

BUFFER_BYTES = 1 << 30
"""Where the frames of a chunk and its halo would take more than this, the chunk is made shorter, down to one
frame beside its halo."""


class Inpainter:
    """Fills holes in clips: what other frames have seen is carried there, 3DCN and CombCN complete the rest.

    Clips of any length and size: a clip is cut into shots, a shot into chunks that overlap by what a frame depends on,
    the 13 frames 3DCN sees to either side and the reach of propagation (the result equals the one-shot result up to
    rounding), and only the hole's neighbourhood is computed.

    Args:
        model: the networks; folded for inference and moved in place.
        device: where to run.
        dtype: what to compute in.
        chunk_frames: frames completed at a time.
        propagate: ``"auto"``: real pixels first, see :class:`vinpaint.propagation.Propagator`; ``"off"``: the networks
            fill the whole hole, the paper's system; or a propagator of one's own.
        backend: what runs the networks: ``"native"``, vinpaint's own operators; an engine of ``"tensorrt"``,
            ``"tensorrt_rtx"`` or ``"openvino"``, which is built for each size of region when it is first met, and kept;
            ``"auto"``: TensorRT's if it can be, else the operators, with a warning that says why.

    Raises:
        InputError: no such way to propagate, no such backend, or one that cannot run here.

    Example::

        inpainter = Inpainter.from_pretrained()
        filled = inpainter(frames, mask)  # uint8 (F, H, W, 3) and (F, H, W)
    """

    def __init__(
        self,
        model: VideoInpainter,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        chunk_frames: int = CHUNK_FRAMES,
        propagate: Propagate | Propagator = "auto",
        backend: Backend = "native",
    ) -> None:
        self.chunk_frames = chunk_frames
        self.propagator = resolve_propagator(propagate)
        self.painter = resolve_painter(backend, model, torch.device(device), dtype)

    @property
    def model(self) -> VideoInpainter:
        """The networks, folded."""
        return self.painter.model

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        device: Literal["auto", "cpu", "cuda"] | str = "auto",
        precision: Precision = "auto",
        propagate: Propagate | Propagator = "auto",
        backend: Backend = "native",
    ) -> Inpainter:
        """Load weights and choose where and in what to compute.

        Args:
            path: a folder with ``model.safetensors`` and ``config.json``, or the name of shipped weights: ``"combcn"``,
                the default, or ``"combcn-s"``, narrow networks for weak CPUs.
            device: ``"auto"`` is the first CUDA device if there is one, else the CPU.
            precision: ``"auto"`` is the fastest that the processor really supports.
            propagate: as above.
            backend: as above.

        Raises:
            InputError: no such weights, device, precision, way to propagate or backend.
        """
        target = resolve_device(device)
        return cls(
            load_pretrained(path),
            device=target,
            dtype=resolve_precision(precision, target),
            propagate=propagate,
            backend=backend,
        )

    def __call__(self, frames: Clip, mask: Clip, *, cuts: Sequence[int] = ()) -> Clip:
        """Fill the hole of a clip in memory.

        Args:
            frames: uint8 (F, H, W, 3), red green blue; a NumPy array or a tensor on any device.
            mask: (F, H, W), uint8 or bool, nonzero in the hole; or (H, W) for all frames.
            cuts: first frame of every shot but the first; nothing is taken from across a cut.

        Returns:
            uint8 (F, H, W, 3), of the same kind and on the same device as ``frames``; equal to ``frames``
            outside the hole.

        Raises:
            InputError: wrong dtype or shape, or a hole that covers everything.
        """
        images, masks = _clip_array("frames", frames), _clip_array("mask", mask)
        _check_clip(images, masks)
        masks = masks.view(np.uint8)
        holes = [masks] * len(images) if masks.ndim == 2 else list(masks)
        plan = make_plan(holes, len(images), cuts)
        filled = np.stack(list(self.fill(zip(images, holes, strict=True), plan)))
        if isinstance(frames, Tensor):
            return torch.from_numpy(filled).to(frames.device)
        return filled

    def fill(self, clip: Iterable[tuple[Image, Mask]], plan: Plan) -> Iterator[Image]:
        """Fill the hole of a stream of frames; memory does not grow with their number.

        Args:
            clip: a frame and its mask at a time: (H, W, 3) uint8 or uint16, red green blue, and (H, W)
                uint8, nonzero in the hole.
            plan: what to compute, made from the same masks.

        Yields:
            The frames in order, of the same dtype; new arrays where there is a hole, else the same.

        Raises:
            InputError: a hole that covers every pixel of every frame.
        """
        if plan.all_hole:
            raise InputError(
                "--mask: expected some known pixels, got a hole that covers every pixel of every frame; "
                "white is the hole, --invert makes it black"
            )
        with ExitStack() as stages:
            frames: Iterator[Given] = (Given(image, mask) for image, mask in clip)
            if self.propagator is not None:
                carried = stages.enter_context(closing(self.propagator(clip, plan)))
                frames = map(self.given, carried)
            for shot in plan.shots:
                yield from self._fill_shot(frames, shot)

    def given(self, frame: Carried) -> Given:
        """A frame after propagation as these networks want it."""
        if self.model.config.prefill != "carried":
            return Given(frame.image, frame.mask)
        unknown = 1 - frame.confidence
        return Given(frame.image, (unknown > 0).view(np.uint8), unknown)

    def _fill_shot(self, frames: Iterator[Given], shot: Shot) -> Iterator[Image]:
        halo = self.model.halo if shot.regions else 0
        window: list[Given] = []  # frames begin to begin + len(window) of the clip
        begin = start = shot.start
        while start < shot.stop:
            if not window:
                window.append(next(frames))
            stop = min(start + self._chunk_length(window[0].image, halo), shot.stop)
            until = min(stop + halo, shot.stop)
            window.extend(next(frames) for _ in range(until - begin - len(window)))
            yield from self._fill_chunk(window, slice(start - begin, stop - begin), shot.regions)
            return_free_memory()
            start = stop
            keep = max(shot.start, start - halo)
            del window[: keep - begin]
            begin = keep

    def _chunk_length(self, image: Image, halo: int) -> int:
        affordable = BUFFER_BYTES // image.nbytes - 2 * halo
        return max(1, min(self.chunk_frames, affordable))

    def _fill_chunk(
        self, window: Sequence[Given], core: slice, regions: Sequence[Region]
    ) -> list[Image]:
        """Fill the frames ``core`` of ``window``; the others are their context."""
        filled = [frame.image for frame in window[core]]
        for region in regions:
            holed = [i for i in range(core.start, core.stop) if window[i].mask[region.box].any()]
            if not holed:
                continue
            first, last = max(0, holed[0] - self.model.halo), holed[-1] + self.model.halo + 1
            around = window[first:last]
            completed = self.painter.complete(around, [i - first for i in holed], region)
            for i, patch in zip(holed, completed, strict=True):
                image = window[i].image
                if filled[i - core.start] is image:
                    filled[i - core.start] = image.copy()
                filled[i - core.start][region.box] = patch
        return filled


def resolve_painter(
    backend: Backend, model: VideoInpainter, device: torch.device, dtype: torch.dtype
) -> Painter:
    """What runs the networks.

    Raises:
        InputError: no such backend, or one that cannot run here.
    """
    if backend == "native":
        return Painter(model, device, dtype)
    if backend not in BACKENDS:
        raise InputError(f"--backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    from vinpaint.engine.painting import EnginePainter

    if backend != "auto":
        return EnginePainter(model, device, dtype, backend)
    try:
        return EnginePainter(model, device, dtype, "tensorrt")
    except InputError as error:
        warnings.warn(
            f"backend auto: vinpaint's own operators, as {error}", InputWarning, stacklevel=3
        )
        return Painter(model, device, dtype)


def resolve_propagator(propagate: Propagate | Propagator) -> Propagator | None:
    """The stage before the networks, or none.

    Raises:
        InputError: a name that is neither ``"auto"`` nor ``"off"``.
    """
    if isinstance(propagate, str):
        if propagate not in ("auto", "off"):
            raise InputError(f"--propagate: expected auto or off, got {propagate!r}")
        return Propagator() if propagate == "auto" else None
    return propagate


def _clip_array(name: str, value: NDArray[Any] | Tensor) -> NDArray[Any]:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value
    raise InputError(
        f"{name}: expected a NumPy array or a torch tensor, got {type(value).__name__}"
    )


def _check_clip(frames: NDArray[Any], mask: NDArray[Any]) -> None:
    if frames.dtype != np.uint8:
        nan = " that contains NaN" if frames.dtype.kind == "f" and np.isnan(frames).any() else ""
        raise InputError(f"frames: expected dtype uint8, got {frames.dtype}{nan}")
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise InputError(f"frames: expected shape (F, H, W, 3) with no side 0, got {frames.shape}")
    if mask.dtype not in (np.uint8, np.bool_):
        nan = " that contains NaN" if mask.dtype.kind == "f" and np.isnan(mask).any() else ""
        raise InputError(f"mask: expected dtype uint8 or bool, got {mask.dtype}{nan}")
    if mask.shape not in (frames.shape[:3], frames.shape[1:3]):
        raise InputError(
            f"mask: expected shape {frames.shape[:3]} or {frames.shape[1:3]}, got {mask.shape}"
        )
