# SPDX-License-Identifier: Apache-2.0
"""What the frame operators are tested on, and how, on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from vinpaint import reference

GRID = 8
VALUES = [torch.uint8, torch.uint16]
SHAPES = [(2, 3, 8, 16), (1, 2, 13, 21), (2, 1, 1, 1), (1, 5, 40, 66)]  # N, F, H, W


def make_frames(shape, values=torch.uint8) -> tuple[Tensor, Tensor]:
    """Frames with every extreme, and a mask of single pixels and whole areas; some frames have none."""
    peak = torch.iinfo(values).max
    frames = torch.randint(0, peak + 1, (*shape, 3)).to(values)
    mask = (torch.rand(shape) < 0.2).to(torch.uint8) * torch.randint(1, 256, shape)
    mask[..., shape[2] // 2 :, : shape[3] // 2] = 255
    mask[-1, -1] = 0
    return frames, mask.to(torch.uint8)


def make_completed(shape, dtype=torch.float32) -> Tensor:
    """(N, 3, F, H', W') beyond [0, 1] on both sides, larger than the frames."""
    n, f, h, w = shape
    return (torch.rand(n, 3, f, h + -h % GRID, w + -w % GRID) * 1.4 - 0.2).to(dtype)


MEAN = torch.tensor([0.45, 0.5, 0.3])


def check_prepared(actual: tuple[Tensor, Tensor], frames: Tensor, mask: Tensor, dtype) -> None:
    """Bit for bit, the averages too."""
    expected = reference.prepare_frames(frames, mask, MEAN, dtype=dtype, grid=GRID)
    full, reduced = (t.cpu() for t in actual)
    assert torch.equal(full, expected[0])
    assert torch.equal(reduced, expected[1])
    for t in (full, reduced):
        assert t.permute(0, 2, 3, 4, 1).is_contiguous()


def check_composited(actual: tuple[Tensor, Tensor], completed, frames, mask) -> None:
    expected, invalid = reference.composite_frames(completed, frames, mask)
    composited = actual[0].cpu()
    assert composited.dtype == frames.dtype
    assert composited.is_contiguous()
    assert torch.equal(composited.int(), expected.int())
    assert actual[1].dtype == torch.int32
    assert actual[1].item() == invalid.item()
