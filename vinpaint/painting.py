# SPDX-License-Identifier: Apache-2.0
"""One region of some frames through the networks: reduced, prepared, completed, brought back, composited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vinpaint import ops
from vinpaint.nn import VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import pad_to_grid, reduce_clip
from vinpaint.video.masks import reduced_hole
from vinpaint.video.windows import Region

Image = NDArray[Any]  # (H, W, 3), uint8 or uint16
Mask = NDArray[np.uint8]  # (H, W), nonzero in the hole

BATCH_PIXELS = 4 * 480 * 864
"""Pixels CombCN is given at a time: enough to fill a GPU, few enough to bound its memory."""


NO_NUMBERS = "the networks gave values that are no numbers; try precision fp32"


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


class Painter:
    """The networks, and what they need around them.

    Args:
        model: folded for inference and moved in place.
        device: where to run.
        dtype: what to compute in.
    """

    def __init__(self, model: VideoInpainter, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.model = fold_batch_norm(model).to(device=device, dtype=dtype)

    def complete(
        self, window: Sequence[Given], wanted: Sequence[int], region: Region
    ) -> Iterator[Image]:
        """One region of the ``wanted`` frames of ``window`` with its hole filled, see :meth:`paint`."""
        with torch.inference_mode():
            guidance = None
            if self.model.completion is not None:
                small = self.completion_input(window, region)
                guidance = self.model.guide(small)[1][:, :, wanted]
            yield from self.paint([window[i] for i in wanted], guidance, region)

    def completion_input(self, window: Sequence[Given], region: Region) -> Tensor:
        """3DCN's input (1, 4, F, h, w) for a region of a window."""
        parts = [
            self.prepare(self.working_clip(part, region), reduced=True)
            for part in _batches(window, region)
        ]
        return torch.cat(parts, dim=2)

    def paint(
        self, frames: Sequence[Given], guidance: Tensor | None, region: Region
    ) -> Iterator[Image]:
        """One region of ``frames`` with its hole filled: (height, width, 3) of the frames' dtype.

        Args:
            frames: the frames that are wanted.
            guidance: of these, 3DCN's; ``None`` for a 2DCN.
            region: of the frames.

        Raises:
            ArithmeticError: the networks gave values that are no numbers.
        """
        done = 0
        for part in _batches(frames, region):
            guide = None if guidance is None else guidance[:, :, done : done + len(part)]
            done += len(part)
            clip = self.working_clip(part, region)
            x = self.prepare(clip, reduced=False)
            yield from self.composited(part, clip, x, self.model.paint(x, guide), region)

    def composited(
        self, frames: Sequence[Given], clip: Clip, x: Tensor, completed: Tensor, region: Region
    ) -> Iterator[Image]:
        """What was ``completed`` of ``frames``, at the working size ``clip`` and prepared ``x``, in their hole."""
        if region.resized:
            clip = clip_of(frames, region)
            completed = self._at_full_size(completed, x, clip, region)
        composited, invalid = ops.composite_frames(completed, clip.frames, clip.mask)
        if invalid.item():
            raise ArithmeticError(NO_NUMBERS)
        yield from composited[0].cpu().numpy()

    def _at_full_size(self, completed: Tensor, x: Tensor, clip: Clip, region: Region) -> Tensor:
        """What was ``completed`` of ``x`` at the working size, (1, 3, F, height, width) at the region's own.

        Where the networks add to a fill, only what they added is enlarged: the fill itself is made at full size, so that
        it meets the hole's edge.
        """
        if self.model.config.prefill == "mean":
            return _resized_back(completed.clamp(0, 1), region)
        added = _resized_back(completed - x[:, :3], region)
        fill = self.prepare(clip.to(self.device), reduced=False)[:, :3]
        return fill[..., : region.height, : region.width].float().cpu() + added

    def working_clip(self, window: Sequence[Given], region: Region) -> Clip:
        """One region's clip at its working size, on the device."""
        working = (region.working_width, region.working_height) if region.resized else None
        return clip_of(window, region, working).to(self.device)

    def prepare(self, clip: Clip, *, reduced: bool) -> Tensor:
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


def unknown_bytes(unknown: Tensor) -> Tensor:
    """Shares of 0 to 1 as uint8: 255 is 1 and 0 is 0 alone, so that no carried pixel reads as known or as unseen."""
    share = (255 * unknown).ceil().clamp(max=254)
    return torch.where(unknown >= 1, 255, share).to(torch.uint8)


def _batches(frames: Sequence[Given], region: Region) -> Iterator[Sequence[Given]]:
    step = max(1, BATCH_PIXELS // (region.working_height * region.working_width))
    return (frames[start : start + step] for start in range(0, len(frames), step))


class Clip(NamedTuple):
    """One region of a window: frames (1, F, h, w, 3), mask (1, F, h, w), and unknown of its shape, or none."""

    frames: Tensor
    mask: Tensor
    unknown: Tensor | None

    def to(self, device: torch.device) -> Clip:
        return Clip(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


def clip_of(window: Sequence[Given], region: Region, size: tuple[int, int] | None = None) -> Clip:
    """One region of a window, reduced to ``size`` (width, height) if given."""
    images = [frame.image[region.box] for frame in window]
    masks = [frame.mask[region.box] for frame in window]
    unknown = [frame.unknown[region.box] for frame in window if frame.unknown is not None]
    if size is not None:
        images = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
        masks = [reduced_hole(mask != 0, size).view(np.uint8) for mask in masks]
        unknown = [_reduced_unknown(plane, size) for plane in unknown]
    parts = (np.stack(part)[None] if part else None for part in (images, masks, unknown))
    return Clip(*(None if part is None else torch.from_numpy(part) for part in parts))  # type: ignore[arg-type]


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
