# SPDX-License-Identifier: Apache-2.0
"""LPIPS: how far apart two pictures look (Zhang et al., CVPR 2018)."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vinpaint.errors import InputError
from vinpaint.features import load_alexnet, load_lpips_weights, load_vgg16

CROP_SIDE = 64
"""A hole's box is enlarged to at least this side, so that the networks' deepest stages see more than a pixel."""

BATCH = 16
"""Crops a network is given at a time."""

SMALLEST = 32
"""Sides of pictures from which AlexNet has something left to pool."""


class LPIPS(nn.Module):
    """LPIPS version 0.1 with its learned weights.

    Args:
        net: the network it looks through: AlexNet, the metric's own choice, or VGG16.

    Raises:
        InputError: unknown net, or the package with the weights is missing.
    """

    def __init__(self, net: Literal["alex", "vgg"] = "alex") -> None:
        super().__init__()
        if net not in ("alex", "vgg"):
            raise InputError(f"net must be 'alex' or 'vgg', got {net!r}")
        self.net = load_alexnet() if net == "alex" else load_vgg16()
        for stage, weights in enumerate(load_lpips_weights(net)):
            self.register_buffer(f"weights{stage}", weights)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) of pictures (B, 3, H, W) in [0, 1]; 0 for equal ones.

        Raises:
            InputError: pictures of different shapes, or with a side below 32.
        """
        if a.shape != b.shape or a.dim() != 4 or min(a.shape[2:]) < SMALLEST:
            raise InputError(
                f"LPIPS: expected two batches (B, 3, H, W) of one shape, sides from {SMALLEST} on, "
                f"got {tuple(a.shape)} and {tuple(b.shape)}"
            )
        distance = a.new_zeros(len(a))
        for stage, pair in enumerate(zip(self.net(a), self.net(b), strict=True)):
            x, y = (_unit_length(features) for features in pair)
            weights = self.get_buffer(f"weights{stage}").view(1, -1, 1, 1)
            distance = distance + (weights * (x - y).square()).sum(1).mean((1, 2))
        return distance


def lpips_hole(
    lpips: LPIPS,
    filled: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    mask: NDArray[np.bool_],
) -> float:
    """Mean LPIPS, over the frames with a hole, of the hole's bounding box, enlarged to at least 64 x 64.

    The box grows evenly to both sides and is moved into the frame; a smaller frame is taken whole.

    Args:
        lpips: the metric; it computes on the device it lies on.
        filled: (F, H, W, 3) uint8.
        truth: like ``filled``.
        mask: (F, H, W) bool, with a hole in some frame.

    Raises:
        InputError: frames with a side below 32.
    """
    by_size: dict[tuple[int, int], list[tuple[int, slice, slice]]] = defaultdict(list)
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        rows, columns = (_span(mask[index].any(axis=axis), mask.shape[2 - axis]) for axis in (1, 0))
        size = (rows.stop - rows.start, columns.stop - columns.start)
        by_size[size].append((int(index), rows, columns))
    device = lpips.get_buffer("weights0").device
    total, count = 0.0, 0
    for boxes in by_size.values():
        for start in range(0, len(boxes), BATCH):
            batch = boxes[start : start + BATCH]
            pictures = (np.stack([clip[box] for box in batch]) for clip in (filled, truth))
            with torch.inference_mode():
                total += lpips(*(_picture_tensor(p, device) for p in pictures)).sum().item()
            count += len(batch)
    return total / count


def _unit_length(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _span(occupied: NDArray[np.bool_], size: int) -> slice:
    """The shortest span of at least :data:`CROP_SIDE` inside ``size`` around what is occupied."""
    where = np.flatnonzero(occupied)
    first, stop = int(where[0]), int(where[-1]) + 1
    length = min(max(stop - first, CROP_SIDE), size)
    start = min(max(first - (length - (stop - first)) // 2, 0), size - length)
    return slice(start, start + length)


def _picture_tensor(pictures: NDArray[np.uint8], device: torch.device) -> Tensor:
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255
