# SPDX-License-Identifier: Apache-2.0
"""The smooth fill that may stand in the hole before the networks look at it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vinpaint.nn import prefill
from vinpaint.nn.prefill import harmonic_fill


def _hole(frames: int = 2, height: int = 33, width: int = 46) -> Tensor:
    mask = torch.zeros(1, 1, frames, height, width)
    mask[:, :, 0, 8:25, 10:30] = 1
    mask[:, :, 1:, 5:9, 30:46] = 1  # reaches the border
    return mask


def test_a_linear_ramp_is_its_own_harmonic_fill() -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 33), torch.linspace(0, 1, 46), indexing="ij")
    ramp = torch.stack([x, y, (x + y) / 2]).view(1, 3, 1, 33, 46).expand(-1, -1, 1, -1, -1)
    mask = _hole(1)
    torch.testing.assert_close(
        harmonic_fill(ramp * (1 - mask), mask, sweeps=400), ramp, rtol=0, atol=1e-3
    )


def test_more_sweeps_come_nearer_to_laplaces_equation() -> None:
    torch.manual_seed(0)
    frames, mask = torch.rand(1, 3, 2, 33, 46), _hole()

    def residual(sweeps: int) -> float:
        filled = harmonic_fill(frames, mask, sweeps=sweeps)
        inside = mask[0, 0, 0] > 0
        plane = filled[0, :, 0]
        around = sum(torch.roll(plane, shift, axis) for axis in (1, 2) for shift in (-1, 1)) / 4
        return (around - plane)[:, inside].abs().max().item()

    assert residual(100) < residual(10) < residual(2)
    assert residual(400) < 1e-3


@pytest.mark.parametrize("height", [1, 2, 33])
def test_known_pixels_stay_and_the_hole_is_not_looked_at(height: int) -> None:
    torch.manual_seed(0)
    frames = torch.rand(2, 3, 2, height, 46)
    mask = _hole(2, 33)[..., :height, :].expand(2, -1, -1, -1, -1).clone()
    mask[..., 0, 3:6] = 1
    poisoned = torch.where(mask > 0, float("nan"), frames)
    filled = harmonic_fill(poisoned, mask)
    assert torch.equal(filled, harmonic_fill(frames, mask))
    known = (mask == 0).expand_as(frames)
    assert torch.equal(filled[known], frames[known])
    assert filled.min() >= frames.min()
    assert filled.max() <= frames.max()


def test_a_frame_that_is_all_hole_is_black() -> None:
    mask = torch.ones(1, 1, 1, 5, 7)
    assert torch.equal(harmonic_fill(torch.rand(1, 3, 1, 5, 7), mask), torch.zeros(1, 3, 1, 5, 7))


@pytest.mark.parametrize("sweeps", [0, 4, 50])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (33, 46), (64, 17)])
def test_the_operator_does_what_is_written_in_plain_torch(size, sweeps, monkeypatch) -> None:
    torch.manual_seed(0)
    height, width = size
    frames, mask = torch.rand(2, 3, 4, *size), torch.zeros(2, 1, 4, *size)
    mask[:, :, 0, height // 4 : 3 * height // 4 + 1, width // 4 : 3 * width // 4 + 1] = 1
    mask[:, :, 1] = (torch.rand(size) > 0.3).float()
    mask[:, :, 2] = 1
    filled = harmonic_fill(frames, mask, sweeps=sweeps)
    monkeypatch.setattr(prefill, "_has_operator", lambda _: False)
    torch.testing.assert_close(filled, harmonic_fill(frames, mask, sweeps=sweeps))


def test_gradients_flow_around_the_operator() -> None:
    frames = torch.rand(1, 3, 2, 33, 46, requires_grad=True)
    mask = _hole()
    harmonic_fill(frames, mask).sum().backward()
    assert frames.grad is not None
    assert (frames.grad[(mask > 0).expand_as(frames)] == 0).all()
    assert frames.grad.sum() == pytest.approx(3 * mask.numel(), rel=1e-3)


@pytest.mark.parametrize(
    ("pixels", "known", "message"),
    [
        (torch.zeros(1, 3, 4, 4).double(), torch.zeros(1, 1, 4, 4), "must be float32"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 5), "known must have the shape"),
        (torch.zeros(3, 4, 4), torch.zeros(1, 4, 4), "known must have the shape"),
    ],
)
def test_the_operator_checks_what_it_is_given(pixels, known, message) -> None:
    with pytest.raises(RuntimeError, match=message):
        torch.ops.vinpaint._harmonic_fill(pixels, known, 4)
