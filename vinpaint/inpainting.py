# SPDX-License-Identifier: Apache-2.0
"""The main job: a clip with a hole in, the clip without it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vinpaint import ops
from vinpaint.devices import (
    Precision,
    resolve_device,
    resolve_precision,
    return_free_memory,
)
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import reduce_clip
from vinpaint.pretrained import load_pretrained
from vinpaint.propagation import Propagator
from vinpaint.video.masks import reduced_hole
from vinpaint.video.windows import Plan, Region, Shot, make_plan

Image = NDArray[Any]  # (H, W, 3), uint8 or uint16
Mask = NDArray[np.uint8]  # (H, W), nonzero in the hole
Clip = TypeVar("Clip", NDArray[Any], Tensor)
Propagate = Literal["auto", "off"]

CHUNK_FRAMES = 32
"""Frames completed at a time, before the halo to either side is added."""

BUFFER_BYTES = 1 << 30
"""Where the frames of a chunk and its halo would take more than this, the chunk is made shorter, down to one
frame beside its halo."""

BATCH_PIXELS = 4 * 480 * 864
"""Pixels CombCN is given at a time: enough to fill a GPU, few enough to bound its memory."""


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

    Raises:
        InputError: no such way to propagate.

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
    ) -> None:
        self.device, self.dtype, self.chunk_frames = torch.device(device), dtype, chunk_frames
        self.propagator = resolve_propagator(propagate)
        self.model = fold_batch_norm(model).to(device=self.device, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        device: Literal["auto", "cpu", "cuda"] | str = "auto",
        precision: Precision = "auto",
        propagate: Propagate | Propagator = "auto",
    ) -> Inpainter:
        """Load weights and choose where and in what to compute.

        Args:
            path: a folder with ``model.safetensors`` and ``config.json``, or the name of shipped weights: ``"combcn"``,
                the default, or ``"combcn-s"``, narrow networks for weak CPUs.
            device: ``"auto"`` is the first CUDA device if there is one, else the CPU.
            precision: ``"auto"`` is the fastest that the processor really supports.
            propagate: as above.

        Raises:
            InputError: no such weights, device, precision or way to propagate.
        """
        target = resolve_device(device)
        return cls(
            load_pretrained(path),
            device=target,
            dtype=resolve_precision(precision, target),
            propagate=propagate,
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
            pairs = iter(clip)
            if self.propagator is not None:
                carried = stages.enter_context(closing(self.propagator(pairs, plan)))
                pairs = ((image, mask) for image, mask, _ in carried)
            for shot in plan.shots:
                yield from self._fill_shot(pairs, shot)

    def _fill_shot(self, pairs: Iterator[tuple[Image, Mask]], shot: Shot) -> Iterator[Image]:
        halo = self.model.halo if shot.regions else 0
        window: list[tuple[Image, Mask]] = []  # frames begin to begin + len(window) of the clip
        begin = start = shot.start
        while start < shot.stop:
            if not window:
                window.append(next(pairs))
            stop = min(start + self._chunk_length(window[0][0], halo), shot.stop)
            until = min(stop + halo, shot.stop)
            window.extend(next(pairs) for _ in range(until - begin - len(window)))
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
        self, window: Sequence[tuple[Image, Mask]], core: slice, regions: Sequence[Region]
    ) -> list[Image]:
        """Fill the frames ``core`` of ``window``; the others are their context."""
        filled = [image for image, _ in window[core]]
        for region in regions:
            holed = [i for i in range(core.start, core.stop) if window[i][1][region.box].any()]
            if not holed:
                continue
            first, last = max(0, holed[0] - self.model.halo), holed[-1] + self.model.halo + 1
            around = window[first:last]
            completed = self._complete(around, [i - first for i in holed], region)
            for i, patch in zip(holed, completed, strict=True):
                image = window[i][0]
                if filled[i - core.start] is image:
                    filled[i - core.start] = image.copy()
                filled[i - core.start][region.box] = patch
        return filled

    def _complete(
        self, window: Sequence[tuple[Image, Mask]], wanted: list[int], region: Region
    ) -> Iterator[Image]:
        """One region of the ``wanted`` frames with its hole filled: (height, width, 3) of the frames' dtype."""
        model = self.model
        with torch.inference_mode():
            step = max(1, BATCH_PIXELS // (region.working_height * region.working_width))
            guidance = None
            if model.completion is not None:
                parts = (window[i : i + step] for i in range(0, len(window), step))
                small = [
                    self._prepare(*self._working_clip(part, region), reduced=True) for part in parts
                ]
                guidance = model.guide(torch.cat(small, dim=2))[1][:, :, wanted]
            for start in range(0, len(wanted), step):
                part = [window[i] for i in wanted[start : start + step]]
                guide = None if guidance is None else guidance[:, :, start : start + step]
                clip = self._working_clip(part, region)
                x = self._prepare(*clip, reduced=False)
                completed = model.paint(x, guide)
                if region.resized:
                    clip = _clip_of(part, region)
                    completed = self._at_full_size(completed, x, clip, region)
                composited, invalid = ops.composite_frames(completed, *clip)
                if invalid.item():
                    raise ArithmeticError(
                        "the networks gave values that are no numbers; try precision fp32"
                    )
                yield from composited[0].cpu().numpy()

    def _at_full_size(
        self, completed: Tensor, x: Tensor, clip: tuple[Tensor, Tensor], region: Region
    ) -> Tensor:
        """What was ``completed`` of ``x`` at the working size, (1, 3, F, height, width) at the region's own.

        Where the networks add to a smooth fill, only what they added is enlarged: the fill itself is made at
        full size, so that it meets the hole's edge.
        """
        if self.model.config.prefill == "mean":
            return _resized_back(completed.clamp(0, 1), region)
        added = _resized_back(completed - x[:, :3], region)
        fill = self._prepare(*(t.to(self.device) for t in clip), reduced=False)[:, :3]
        return fill[..., : region.height, : region.width].float().cpu() + added

    def _working_clip(
        self, window: Sequence[tuple[Image, Mask]], region: Region
    ) -> tuple[Tensor, Tensor]:
        """One region's frames (1, F, h, w, 3) and mask (1, F, h, w) at its working size, on the device."""
        working = (region.working_width, region.working_height) if region.resized else None
        frames, mask = _clip_of(window, region, working)
        return frames.to(self.device), mask.to(self.device)

    def _prepare(self, frames: Tensor, mask: Tensor, *, reduced: bool) -> Tensor:
        """CombCN's input (1, 4, F, h, w) on the grid, or 3DCN's, reduced in height and width."""
        inputs = ops.prepare_frames(
            frames,
            mask,
            self.model.mean.flatten(),
            dtype=self.dtype,
            grid=self.model.grid,
            full=not reduced,
            reduced=reduced,
        )
        x = inputs[1 if reduced else 0]
        if reduced and self.model.config.reduction == 4:  # the operator halves once
            return self.model.network_input(*reduce_clip(x[:, :3], x[:, 3:]))
        return self.model.prefilled(x)


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


def _clip_of(
    window: Sequence[tuple[Image, Mask]], region: Region, size: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """One region's frames (1, F, h, w, 3) and mask (1, F, h, w), reduced to ``size`` (width, height) if given."""
    images = [image[region.box] for image, _ in window]
    masks = [mask[region.box] for _, mask in window]
    if size is not None:
        images = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
        masks = [reduced_hole(mask != 0, size).view(np.uint8) for mask in masks]
    return torch.from_numpy(np.stack(images)[None]), torch.from_numpy(np.stack(masks)[None])


def _resized_back(completed: Tensor, region: Region) -> Tensor:
    """(1, 3, F, h, w) from the working size to the region's own, on the CPU."""
    patches = completed[0].permute(1, 2, 3, 0).float().cpu().numpy()
    patches = patches[:, : region.working_height, : region.working_width]
    size = (region.width, region.height)
    larger = [cv2.resize(patch, size, interpolation=cv2.INTER_CUBIC) for patch in patches]
    return torch.from_numpy(np.stack(larger)[None]).permute(0, 4, 1, 2, 3)


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
