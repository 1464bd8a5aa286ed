# SPDX-License-Identifier: Apache-2.0
"""The main job: a clip with a hole in, the clip without it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
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
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import GRID, reduce_clip
from vinpaint.pretrained import load_pretrained
from vinpaint.video.windows import Plan, Region, Shot, make_plan

Image = NDArray[Any]  # (H, W, 3), uint8 or uint16
Mask = NDArray[np.uint8]  # (H, W), nonzero in the hole
Clip = TypeVar("Clip", NDArray[Any], Tensor)

CHUNK_FRAMES = 32
"""Frames completed at a time, before the halo to either side is added."""

BUFFER_BYTES = 1 << 30
"""Where the frames of a chunk and its halo would take more than this, the chunk is made shorter, down to one
frame beside its halo."""

BATCH_PIXELS = 4 * 480 * 864
"""Pixels CombCN is given at a time: enough to fill a GPU, few enough to bound its memory."""


class Inpainter:
    """Fills holes in clips with 3DCN and CombCN.

    Clips of any length and size: a clip is cut into shots, a shot into chunks that overlap by the 13 frames
    3DCN sees to either side (the result equals the one-shot result up to rounding), and only the hole's
    neighbourhood is computed.

    Args:
        model: the networks; folded for inference and moved in place.
        device: where to run.
        dtype: what to compute in.
        chunk_frames: frames completed at a time.

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
    ) -> None:
        self.device, self.dtype, self.chunk_frames = torch.device(device), dtype, chunk_frames
        self.model = fold_batch_norm(model).to(device=self.device, dtype=dtype)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        device: Literal["auto", "cpu", "cuda"] | str = "auto",
        precision: Precision = "auto",
    ) -> Inpainter:
        """Load weights and choose where and in what to compute.

        Args:
            path: a folder with ``model.safetensors`` and ``config.json``; ``None``: the shipped weights.
            device: ``"auto"`` is the first CUDA device if there is one, else the CPU.
            precision: ``"auto"`` is the fastest that the processor really supports.

        Raises:
            InputError: no such weights, device or precision.
        """
        target = resolve_device(device)
        return cls(load_pretrained(path), device=target, dtype=resolve_precision(precision, target))

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
        pairs = iter(clip)
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
                image, mask = window[i]
                if filled[i - core.start] is image:
                    filled[i - core.start] = image.copy()
                _composite(filled[i - core.start][region.box], mask[region.box], patch)
        return filled

    def _complete(
        self, window: Sequence[tuple[Image, Mask]], wanted: list[int], region: Region
    ) -> Iterator[Image]:
        """The networks' pixels of one region in the ``wanted`` frames: float32 (height, width, 3) in [0, 1]."""
        with torch.inference_mode():
            step = max(1, BATCH_PIXELS // (region.working_height * region.working_width))
            guidance = None
            if self.model.completion is not None:
                parts = (window[i : i + step] for i in range(0, len(window), step))
                small = [reduce_clip(*self._region_clip(part, region)) for part in parts]
                clip, hole = (torch.cat(side, dim=2) for side in zip(*small, strict=True))
                guidance = self.model.complete(clip, hole)[1][:, :, wanted]
            for start in range(0, len(wanted), step):
                part = [window[i] for i in wanted[start : start + step]]
                guide = None if guidance is None else guidance[:, :, start : start + step]
                completed = self.model.restore(*self._region_clip(part, region), guide)
                for patch in completed[0].permute(1, 2, 3, 0).float().clamp_(0, 1).cpu().numpy():
                    fill = patch[: region.working_height, : region.working_width]
                    if region.resized:
                        size = (region.width, region.height)
                        fill = cv2.resize(fill, size, interpolation=cv2.INTER_CUBIC)
                    yield fill

    def _region_clip(
        self, window: Sequence[tuple[Image, Mask]], region: Region
    ) -> tuple[Tensor, Tensor]:
        """The networks' input: (1, 3, F, h, w) in [0, 1] and (1, 1, F, h, w), on the grid."""
        size = (region.working_width, region.working_height)
        images, masks = [], []
        for whole, whole_mask in window:
            image, hole = whole[region.box], (whole_mask[region.box] != 0).astype(np.float32)
            if region.resized:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                # A pixel of the smaller frame is hole if any pixel it covers is.
                hole = (cv2.resize(hole, size, interpolation=cv2.INTER_AREA) > 0).astype(np.float32)
            bottom, right = -size[1] % GRID, -size[0] % GRID
            images.append(np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge"))
            masks.append(np.pad(hole, ((0, bottom), (0, right)), mode="edge"))
        stacked = np.stack(images)
        peak = np.iinfo(stacked.dtype).max
        frames = torch.from_numpy(stacked).to(self.device).to(torch.float32).div_(peak)
        clip = frames.permute(3, 0, 1, 2).unsqueeze(0).to(self.dtype)
        hole_clip = torch.from_numpy(np.stack(masks)).to(self.device, self.dtype)[None, None]
        return clip, hole_clip


def _composite(image: Image, mask: Mask, patch: NDArray[np.float32]) -> None:
    """Write ``patch`` (in [0, 1]) into ``image`` inside the hole, rounded once; nothing else changes."""
    hole = mask != 0
    fill = patch[hole]
    if not np.isfinite(fill).all():
        raise ArithmeticError("the networks gave values that are no numbers; try precision fp32")
    peak = np.iinfo(image.dtype).max
    image[hole] = np.rint(np.clip(fill, 0, 1) * peak).astype(image.dtype)


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
