# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from tolerances import assert_close

from vinpaint import ops, reference


def clip(shape=(2, 3, 4, 7, 5), dtype=torch.float32, layout="contiguous"):
    pred, target = torch.randn(2, *shape, dtype=dtype).unbind(0)
    mask = (torch.rand(shape[0], 1, *shape[2:]) < 0.3).to(dtype)
    mask[0, :, 1] = 0  # a frame without a hole
    if layout == "channels_last":
        pred, target = (t.contiguous(memory_format=torch.channels_last_3d) for t in (pred, target))
    elif layout == "strided":
        pred, target, mask = (
            t.repeat_interleave(2, dim=-1)[..., ::2].transpose(2, 3).contiguous().transpose(2, 3)
            for t in (pred, target, mask)
        )
    return pred, target, mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("per_frame", [False, True])
def test_matches_reference(dtype, layout, per_frame):
    pred, target, mask = clip(dtype=dtype, layout=layout)
    pred.requires_grad_()
    target.requires_grad_()
    loss = ops.masked_l1(pred, target, mask, per_frame=per_frame)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    (3 * loss).backward()

    wide_pred, wide_target = (t.detach().double().requires_grad_() for t in (pred, target))
    expected = reference.masked_l1(wide_pred, wide_target, mask.double(), per_frame=per_frame)
    (3 * expected).backward()
    accurate = torch.promote_types(dtype, torch.float32)
    assert_close(loss.detach(), expected.detach(), accurate)
    assert_close(pred.grad, wide_pred.grad, dtype)
    assert_close(target.grad, wide_target.grad, dtype)


def test_gradient_only_for_target():
    pred, target, mask = clip()
    target.requires_grad_()
    ops.masked_l1(pred, target, mask).backward()
    assert target.grad is not None


@pytest.mark.parametrize("per_frame", [False, True])
def test_gradcheck(per_frame):
    pred, target, mask = clip((2, 2, 2, 3, 2), torch.float64)
    pred.requires_grad_()
    target.requires_grad_()
    torch.autograd.gradcheck(
        lambda a, b: ops.masked_l1(a, b, mask, per_frame=per_frame), (pred, target)
    )


def test_no_hole_is_zero_not_nan():
    pred, target, mask = clip()
    pred.requires_grad_()
    loss = ops.masked_l1(pred, target, torch.zeros_like(mask))
    loss.backward()
    assert loss.item() == 0
    assert not pred.grad.any()


def test_equal_pixels_have_no_gradient():
    pred, _, mask = clip()
    pred.requires_grad_()
    ops.masked_l1(pred, pred.detach().clone(), mask).backward()
    assert not pred.grad.any()


def test_what_lies_outside_the_hole_does_not_count():
    pred, target, mask = clip()
    loss = ops.masked_l1(pred, target, mask)
    pred = torch.where(mask.bool(), pred, torch.inf)
    assert torch.equal(ops.masked_l1(pred, target, mask), loss)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64])
def test_mask_of_another_dtype(dtype):
    pred, target, mask = clip()
    assert torch.equal(
        ops.masked_l1(pred, target, mask.to(dtype)), ops.masked_l1(pred, target, mask)
    )


@pytest.mark.parametrize("shape", [(0, 3, 4, 5, 6), (2, 3, 0, 5, 6), (2, 0, 4, 5, 6)])
def test_empty(shape):
    pred = torch.randn(shape, requires_grad=True)
    loss = ops.masked_l1(pred, torch.zeros(shape), torch.ones(shape[0], 1, *shape[2:]))
    loss.backward()
    assert loss.item() == 0
    assert pred.grad.shape == shape


def test_same_bits_for_any_thread_count():
    pred, target, mask = clip((2, 3, 4, 64, 48))
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ops.masked_l1(pred, target, mask))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(r, results[0]) for r in results)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_opcheck(layout):
    pred, target, mask = clip((1, 2, 2, 3, 4), layout=layout)
    pred.requires_grad_()
    torch.library.opcheck(torch.ops.vinpaint.masked_l1, (pred, target, mask, True))
    loss, scale = torch.ops.vinpaint.masked_l1(pred.detach(), target, mask, False)
    torch.library.opcheck(
        torch.ops.vinpaint._masked_l1_backward, (loss, pred.detach(), target, mask, scale)
    )


def test_compile_fullgraph():
    pred, target, mask = clip()
    pred.requires_grad_()

    def step(p):
        return ops.masked_l1(p, target, mask, per_frame=True) * 2

    expected = torch.autograd.grad(step(pred), pred)[0]
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(pred), step(pred))
    assert torch.equal(torch.autograd.grad(compiled(pred), pred)[0], expected)


def test_autocast_keeps_float32():
    pred, target, mask = clip(dtype=torch.bfloat16)
    expected = ops.masked_l1(pred.float(), target.float(), mask)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.masked_l1(pred, target.float(), mask), expected)


def test_double_backward_says_so():
    pred, target, mask = clip()
    pred.requires_grad_()
    weight = torch.ones((), requires_grad=True)
    (grad,) = torch.autograd.grad(
        ops.masked_l1(pred, target, mask) * weight, pred, create_graph=True
    )
    with pytest.raises(RuntimeError, match="masked_l1: a second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t, m: (p[0], t, m), r"pred must have 5 dimensions \(N, C, F, H, W\), got 4"),
        (lambda p, t, m: (p.int(), t.int(), m), "pred must be float32, .* got Int"),
        (lambda p, t, m: (p, t[:1], m), r"target must have pred's shape \(2, 3, 4, 7, 5\), got"),
        (lambda p, t, m: (p, t.double(), m), "target must have pred's dtype Float, got Double"),
        (lambda p, t, m: (p, t, t), r"mask must have the shape \(2, 1, 4, 7, 5\), got \(2, 3"),
        (lambda p, t, m: (p, t, m.to("meta")), "mask must be on the device of pred, cpu, got meta"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(RuntimeError, match="masked_l1: " + message):
        ops.masked_l1(*change(*clip()))


@pytest.mark.parametrize("name", ["grad", "scale"])
def test_a_gradient_on_another_device_is_refused(name):
    pred, target, mask = clip()
    loss, scale = torch.ops.vinpaint.masked_l1(pred, target, mask, False)
    arguments = {"grad": loss, "pred": pred, "target": target, "mask": mask, "scale": scale}
    arguments[name] = arguments[name].to("meta")
    backward = torch.ops.vinpaint._masked_l1_backward.default
    with pytest.raises(RuntimeError, match=f"{name} must be on the device of pred, cpu, got meta"):
        backward(**arguments)
    cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    with pytest.raises(RuntimeError, match=f"_masked_l1_backward: {name} must be on pred's device"):
        backward.redispatch(cpu, *arguments.values())
