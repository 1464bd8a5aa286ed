# SPDX-License-Identifier: Apache-2.0
"""masked_l1's kernels, in the emulator, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from tolerances import assert_close

from vinpaint import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PACKED, PLANES = torch.channels_last_3d, torch.contiguous_format


def make_case(shape, dtype=torch.float32, layouts=(PACKED, PLANES)):
    pred, target = torch.randn(2, *shape).to(dtype).unbind(0)
    mask = (torch.rand(shape[0], 1, *shape[2:]) < 0.3).to(dtype)
    mask[0, :, -1] = 0  # a frame without a hole
    target[..., 0] = pred[..., 0]  # pixels without a difference
    pred, target = (
        t.contiguous(memory_format=layout)
        for t, layout in zip((pred, target), layouts, strict=True)
    )
    return pred, target, mask


def check(emulated, pred, target, mask, per_frame):
    """Compares value and gradient with the reference; returns them."""
    loss, scale = emulated.masked_l1(pred, target, mask, per_frame)
    grad = emulated._masked_l1_backward(torch.tensor(3.0), pred, target, mask, scale)

    wide = pred.double().requires_grad_()
    expected = reference.masked_l1(wide, target.double(), mask.double(), per_frame=per_frame)
    (3 * expected).backward()
    assert_close(loss, expected.detach(), torch.float32)
    largest = max(wide.grad.abs().max().item(), 1e-30)
    assert_close(grad / largest, wide.grad / largest, pred.dtype)
    assert grad.is_contiguous(memory_format=torch.channels_last_3d) or pred.shape[1] == 1
    return loss, grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layouts", [(PACKED, PACKED), (PACKED, PLANES), (PLANES, PLANES)])
@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 3, 3, 40, 56),  # read by vectors, two chunks a frame
        (2, 3, 3, 7, 9),  # pixel by pixel
    ],
)
def test_matches_reference(emulated, dtype, layouts, per_frame, shape):
    check(emulated, *make_case(shape, dtype, layouts), per_frame)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_other_channels(emulated, channels):
    check(emulated, *make_case((2, channels, 2, 8, 16)), False)


def test_one_pixel(emulated):
    pred, target = torch.randn(2, 1, 3, 1, 1, 1).unbind(0)
    check(emulated, pred, target, torch.ones(1, 1, 1, 1, 1), True)


@pytest.mark.parametrize("per_frame", [False, True])
def test_any_strides(emulated, per_frame):
    pred, target, mask = (
        t.repeat_interleave(2, dim=-1)[..., ::2].transpose(2, 3).contiguous().transpose(2, 3)
        for t in make_case((2, 3, 4, 7, 5))
    )
    check(emulated, pred, target, mask, per_frame)


def test_part_of_larger_tensors(emulated):
    """Rows that do not follow each other, and a beginning in the middle of 16 bytes."""
    pred, target, mask = make_case((1, 3, 2, 8, 17))
    check(emulated, *(t[..., :16] for t in (pred, target, mask)), True)
    check(emulated, *(t[..., 1:] for t in (pred, target, mask)), True)
    storage = torch.randn(3 * 2 * 8 * 16 + 1)[1:].view(1, 3, 2, 8, 16)
    check(emulated, storage, target[..., :16].contiguous(), mask[..., :16].contiguous(), True)


def test_offsets_beyond_32_bits(emulated):
    """A view into memory that is never touched but for the view."""
    case = make_case((1, 3, 2, 4, 8), torch.bfloat16, (PLANES, PLANES))
    apart = 2**31 + 8
    for frames_apart, planes_apart in [(apart, 64), (64, apart)]:
        far = torch.empty(2 * apart + 3 * 64, dtype=torch.bfloat16).as_strided(
            case[0].shape, (0, planes_apart, frames_apart, 8, 1)
        )
        far.copy_(case[0])
        check(emulated, far, *case[1:], False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "mask_dtype", [torch.bool, torch.uint8, torch.float32, torch.float16, torch.int64]
)
@pytest.mark.parametrize("width", [16, 15])
def test_masks_of_any_dtype(emulated, dtype, mask_dtype, width):
    pred, target, mask = make_case((2, 3, 2, 8, width), dtype)
    expected = check(emulated, pred, target, mask, True)
    actual = check(emulated, pred, target, mask.to(mask_dtype), True)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_weighted_masks(emulated):
    pred, target, mask = make_case((2, 3, 2, 8, 16))
    check(emulated, pred, target, mask * torch.rand_like(mask), False)


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("shape", [(7, 3, 3, 32, 72), (1, 3, 70, 4, 8), (70, 3, 1, 4, 8)])
def test_same_bits_whatever_the_order(emulated, monkeypatch, per_frame, shape):
    case = make_case(shape, torch.bfloat16)
    results = []
    for seed in range(3):
        monkeypatch.setenv("VINPAINT_EMULATOR_SEED", str(seed))
        results.append(check(emulated, *case, per_frame)[0])
    assert all(torch.equal(r, results[0]) for r in results)


@pytest.mark.parametrize("width", [16, 15])
def test_no_hole_is_zero_not_nan(emulated, width):
    pred, target, mask = make_case((2, 3, 2, 8, width))
    loss, grad = check(emulated, pred, target, torch.zeros_like(mask), True)
    assert loss == 0
    assert not grad.any()


@pytest.mark.parametrize("width", [16, 15])
def test_what_lies_outside_the_hole_does_not_count(emulated, width):
    pred, target, mask = make_case((2, 3, 2, 8, width))
    loss, scale = emulated.masked_l1(pred, target, mask, False)
    unknown = torch.where(mask.bool(), pred, torch.nan)
    assert torch.equal(emulated.masked_l1(unknown, target, mask, False)[0], loss)
    grad = emulated._masked_l1_backward(loss, unknown, target, mask, scale)
    assert not grad[~mask.bool().expand_as(grad)].any()


def test_empty(emulated):
    pred = torch.randn(2, 3, 0, 5, 6)
    loss, scale = emulated.masked_l1(pred, pred, pred[:, :1], False)
    assert loss == 0
    assert emulated._masked_l1_backward(loss, pred, pred, pred[:, :1], scale).shape == pred.shape


def test_double_is_refused(emulated):
    pred = torch.randn(1, 3, 2, 8, 8, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="pred must be float32, bfloat16 or float16, got Double"):
        emulated.masked_l1(pred, pred, pred[:, :1], False)
