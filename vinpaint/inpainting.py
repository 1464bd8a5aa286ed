# SPDX-License-Identifier: Apache-2.0
"""The main job: a clip with a hole in, the clip without it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vinpaint import ops
from vinpaint.devices import (
    Precision,
    resolve_device,
    resolve_precision,
    return_free_memory,
)
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import pad_to_grid, reduce_clip
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


class Given(NamedTuple):
    """One frame as the networks get it.

    Attributes:
        image: with what was carried in the hole.
        mask: what is still to be completed.
        unknown: (H, W) float32, for networks that start from what was carried: 1 where nothing was, 0 outside the hole,
            between the share of a carried pixel that is not believed; ``None``: as the mask says.
    """

    image: Image
    mask: Mask
    unknown: NDArray[np.float32] | None = None


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
            frames = (Given(image, mask) for image, mask in clip)
            if self.propagator is not None:
                carried = stages.enter_context(closing(self.propagator(clip, plan)))
                frames = (self._given(*frame) for frame in carried)
            for shot in plan.shots:
                yield from self._fill_shot(frames, shot)

    def _given(self, image: Image, mask: Mask, confidence: NDArray[np.float32]) -> Given:
        if self.model.config.prefill != "carried":
            return Given(image, mask)
        return Given(image, (confidence < 1).view(np.uint8), 1 - confidence)

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
            completed = self._complete(around, [i - first for i in holed], region)
            for i, patch in zip(holed, completed, strict=True):
                image = window[i].image
                if filled[i - core.start] is image:
                    filled[i - core.start] = image.copy()
                filled[i - core.start][region.box] = patch
        return filled

    def _complete(
        self, window: Sequence[Given], wanted: list[int], region: Region
    ) -> Iterator[Image]:
        """One region of the ``wanted`` frames with its hole filled: (height, width, 3) of the frames' dtype."""
        model = self.model
        with torch.inference_mode():
            step = max(1, BATCH_PIXELS // (region.working_height * region.working_width))
            guidance = None
            if model.completion is not None:
                parts = (window[i : i + step] for i in range(0, len(window), step))
                small = [
                    self._prepare(self._working_clip(part, region), reduced=True) for part in parts
                ]
                guidance = model.guide(torch.cat(small, dim=2))[1][:, :, wanted]
            for start in range(0, len(wanted), step):
                part = [window[i] for i in wanted[start : start + step]]
                guide = None if guidance is None else guidance[:, :, start : start + step]
                clip = self._working_clip(part, region)
                x = self._prepare(clip, reduced=False)
                completed = model.paint(x, guide)
                if region.resized:
                    clip = _clip_of(part, region)
                    completed = self._at_full_size(completed, x, clip, region)
                composited, invalid = ops.composite_frames(completed, clip.frames, clip.mask)
                if invalid.item():
                    raise ArithmeticError(
                        "the networks gave values that are no numbers; try precision fp32"
                    )
                yield from composited[0].cpu().numpy()

    def _at_full_size(self, completed: Tensor, x: Tensor, clip: _Clip, region: Region) -> Tensor:
        """What was ``completed`` of ``x`` at the working size, (1, 3, F, height, width) at the region's own.

        Where the networks add to a fill, only what they added is enlarged: the fill itself is made at full size, so that
        it meets the hole's edge.
        """
        if self.model.config.prefill == "mean":
            return _resized_back(completed.clamp(0, 1), region)
        added = _resized_back(completed - x[:, :3], region)
        fill = self._prepare(clip.to(self.device), reduced=False)[:, :3]
        return fill[..., : region.height, : region.width].float().cpu() + added

    def _working_clip(self, window: Sequence[Given], region: Region) -> _Clip:
        """One region's clip at its working size, on the device."""
        working = (region.working_width, region.working_height) if region.resized else None
        return _clip_of(window, region, working).to(self.device)

    def _prepare(self, clip: _Clip, *, reduced: bool) -> Tensor:
        """CombCN's input (1, 4, F, h, w) on the grid, or 3DCN's, reduced in height and width."""
        inputs = ops.prepare_frames(
            clip.frames,
            clip.mask if clip.unknown is None else clip.unknown >= 1,
            self.model.mean.flatten(),
            dtype=self.dtype,
            grid=self.model.grid,
            full=not reduced,
            reduced=reduced,
        )
        x = inputs[1 if reduced else 0]
        if clip.unknown is not None:
            unknown = pad_to_grid(clip.unknown[:, None], self.model.grid)
            x[:, 3:] = F.max_pool3d(unknown, (1, 2, 2)) if reduced else unknown
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


class _Clip(NamedTuple):
    """One region of a window: frames (1, F, h, w, 3), mask (1, F, h, w), and unknown of its shape, or none."""

    frames: Tensor
    mask: Tensor
    unknown: Tensor | None

    def to(self, device: torch.device) -> _Clip:
        return _Clip(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


def _clip_of(window: Sequence[Given], region: Region, size: tuple[int, int] | None = None) -> _Clip:
    """One region of a window, reduced to ``size`` (width, height) if given."""
    images = [frame.image[region.box] for frame in window]
    masks = [frame.mask[region.box] for frame in window]
    unknown = [frame.unknown[region.box] for frame in window if frame.unknown is not None]
    if size is not None:
        images = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
        masks = [reduced_hole(mask != 0, size).view(np.uint8) for mask in masks]
        unknown = [_reduced_unknown(plane, size) for plane in unknown]
    parts = (np.stack(part)[None] if part else None for part in (images, masks, unknown))
    return _Clip(*(None if part is None else torch.from_numpy(part) for part in parts))  # type: ignore[arg-type]


def _reduced_unknown(unknown: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A pixel of which nothing is known makes the whole reduced pixel one."""
    mean = cv2.resize(unknown, size, interpolation=cv2.INTER_AREA)
    return np.where(reduced_hole(unknown >= 1, size), np.float32(1), mean)


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
