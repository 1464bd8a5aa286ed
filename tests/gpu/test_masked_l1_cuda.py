# SPDX-License-Identifier: Apache-2.0
"""masked_l1 on a GPU against the reference in float64 on the CPU."""

from __future__ import annotations

import pytest
import torch
from tolerances import assert_close

from vinpaint import ops, reference

pytestmark = pytest.mark.needs_cuda


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 129, 65), (1, 3, 1, 1, 1), (3, 1, 33, 64, 64)])
def test_matches_reference(dtype, layout, per_frame, shape):
    pred, target = torch.randn(2, *shape, dtype=dtype).unbind(0)
    mask = (torch.rand(shape[0], 1, *shape[2:]) < 0.3).to(dtype)
    mask[:, :, 0] = 0
    on_gpu = pred.cuda().contiguous(memory_format=layout).requires_grad_()
    arguments = (on_gpu, target.cuda(), mask.cuda())
    loss = ops.masked_l1(*arguments, per_frame=per_frame)
    loss.backward()

    wide = pred.double().requires_grad_()
    expected = reference.masked_l1(wide, target.double(), mask.double(), per_frame=per_frame)
    expected.backward()
    assert_close(loss.detach(), expected.detach(), torch.float32)
    assert_close(on_gpu.grad, wide.grad, dtype)
    assert torch.equal(ops.masked_l1(*arguments, per_frame=per_frame), loss)


def test_runs_on_the_current_stream():
    pred, target = torch.randn(2, 4, 3, 8, 64, 64, device="cuda").unbind(0)
    mask = torch.ones(4, 1, 8, 64, 64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        doubled = pred * 2
        loss = ops.masked_l1(doubled, target, mask)
    stream.synchronize()
    torch.testing.assert_close(loss, (doubled - target).abs().mean())


def test_opcheck():
    pred = torch.randn(1, 3, 2, 8, 8, device="cuda", requires_grad=True)
    mask = torch.ones(1, 1, 2, 8, 8, device="cuda")
    torch.library.opcheck(
        torch.ops.vinpaint.masked_l1, (pred, torch.zeros_like(pred).detach(), mask, False)
    )


def test_double_is_refused():
    pred = torch.randn(1, 3, 2, 8, 8, device="cuda", dtype=torch.float64)
    with pytest.raises(RuntimeError, match="pred must be float32, bfloat16 or float16, got Double"):
        ops.masked_l1(pred, pred, pred[:, :1])
