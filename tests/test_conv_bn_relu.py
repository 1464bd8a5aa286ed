# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from convolution_cases import BY_NAME, CASES, DTYPES, WIDE, Case, make_inputs, sure_of_relu
from convolution_cases import call_training as call
from tolerances import assert_close

from vinpaint import ops, reference


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [c for c in CASES if c.name != "one_pixel"], ids=str)
@pytest.mark.parametrize("extras", [False, True])
def test_matches_reference(case, dtype, extras):
    inputs = make_inputs(case, dtype, extras=extras)
    out, mean, var = call(ops.conv_bn_relu, inputs, case, eps=1e-3)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert mean.dtype == var.dtype == torch.promote_types(dtype, torch.float32)
    expected = call(reference.conv_bn_relu, inputs.double(), case, eps=1e-3)
    for actual, wanted in zip((out, mean, var), expected, strict=True):
        assert_close(actual, wanted, dtype)


@pytest.mark.parametrize("layout", ["channels_last", "strided", "offset"])
@pytest.mark.parametrize("name", ["stride", "flat", "deconv"])
def test_layouts(name, layout):
    case = BY_NAME[name]
    inputs = make_inputs(case, torch.float32, extras=True, layout=layout)
    expected = call(reference.conv_bn_relu, inputs.double(), case)
    assert_close(call(ops.conv_bn_relu, inputs, case)[0], expected[0], torch.float32)


def test_one_pixel_is_beta():
    inputs = make_inputs(BY_NAME["one_pixel"], torch.float32, extras=False)
    out, _, var = call(ops.conv_bn_relu, inputs, BY_NAME["one_pixel"])
    assert not var.any()
    torch.testing.assert_close(out.flatten(), inputs.beta.relu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "name", ["stride", "dilation", "flat", "deconv", "deconv_flat", *(c.name for c in WIDE)]
)
def test_gradients_match_reference(name, dtype):
    case = BY_NAME[name]
    inputs = make_inputs(case, dtype, extras=True)
    wide = inputs.double().require_grad()
    out = call(ops.conv_bn_relu, inputs.require_grad(), case)[0]
    expected, mean, var = call(reference.conv_bn_relu, wide, case)
    sure = sure_of_relu(wide, case, mean, var)
    grad = (torch.randn(out.shape, dtype=torch.float64) * sure).to(dtype)
    out.backward(grad)
    expected.backward(grad.double())
    for name_, t in inputs.tensors().items():
        assert t.grad.dtype == t.dtype
        reference_grad = wide.tensors()[name_].grad
        error = (t.grad.double() - reference_grad).norm() / reference_grad.norm()
        assert error < {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype], (
            name_
        )


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_bfloat16_gradients_of_few_frames_read_no_foreign_memory(transposed, frames):
    kernel, stride = ((3, 4, 4), (1, 2, 2)) if transposed else ((3, 3, 3), (1, 1, 1))
    case = Case("few", kernel, stride, (1, 1, 1), transposed, (1, frames, 8, 8), (32, 32, 64))
    inputs = make_inputs(case, torch.bfloat16, extras=True)
    wide = inputs.double().require_grad()
    out = call(ops.conv_bn_relu, inputs.require_grad(), case)[0]
    expected = call(reference.conv_bn_relu, wide, case)[0]
    grad = torch.randn(out.shape, dtype=torch.float64)
    # What the allocator hands out next is no number.
    poison = [torch.full((1 << n,), float("nan")) for n in range(8, 23) for _ in range(3)]
    del poison
    out.backward(grad.to(torch.bfloat16))
    expected.backward(grad)
    for name in ("x", "skip", "weight"):
        got, right = inputs.tensors()[name].grad.double(), wide.tensors()[name].grad
        assert (got - right).norm() < 0.15 * right.norm(), name  # a wrong ReLU edge here and there


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradcheck(extras, transposed):
    kernel, stride = ((1, 4, 4), (1, 2, 2)) if transposed else ((3, 3, 1), (1, 2, 1))
    case = Case("small", kernel, stride, (1, 1, 1), transposed, (1, 2, 3, 2), (1, 1, 2))
    inputs = make_inputs(case, torch.float64, extras=extras).require_grad()
    names = [k for k, t in inputs.tensors().items() if t is not None]

    def function(*tensors):
        inputs.__dict__.update(zip(names, tensors, strict=True))
        return call(ops.conv_bn_relu, inputs, case)[0]

    torch.autograd.gradcheck(function, tuple(inputs.tensors()[k] for k in names))


@pytest.mark.parametrize("only", ["x", "skip", "weight", "gamma", "beta", "residual"])
def test_gradient_of_one_input_alone(only):
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=True)
    inputs.tensors()[only].requires_grad_()
    out, mean, var = call(ops.conv_bn_relu, inputs, case)
    assert not mean.requires_grad
    assert not var.requires_grad
    out.sum().backward()
    assert [k for k, t in inputs.tensors().items() if t.grad is not None] == [only]


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_statistics_keep_their_digits_under_an_offset(offset):
    # A pointwise kernel of ones hands x through, so the statistics are those of x itself.
    x = torch.randn(2, 1, 8, 60, 50) + offset
    ones = torch.ones(1)
    out, mean, var = ops.conv_bn_relu(x, torch.ones(1, 1, 1, 1, 1), ones, torch.zeros(1))
    wide_var, wide_mean = torch.var_mean(x.double(), correction=0)
    torch.testing.assert_close(mean.double(), wide_mean.view(1), rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(var.double(), wide_var.view(1), rtol=3e-5, atol=0)
    expected = ((x.double() - mean.double()) / wide_var.sqrt()).relu()
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_for_any_thread_count(dtype):
    case = Case("wide", (1, 1, 1), clip=(2, 3, 40, 37), channels=(24, 8, 20))
    inputs = make_inputs(case, dtype, extras=False)
    pre = torch.ops.vinpaint.conv_bn_relu(
        inputs.x,
        None,
        inputs.weight,
        inputs.gamma,
        inputs.beta,
        None,
        [1] * 3,
        [1] * 3,
        False,
        1e-5,
        False,
    )[1]
    # A unit kernel reproduces `pre` exactly, so that only our own sums are compared.
    unit = torch.eye(20, dtype=dtype).view(20, 20, 1, 1, 1)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            gamma = inputs.gamma.clone().requires_grad_()
            beta = inputs.beta.clone().requires_grad_()
            out, mean, var = ops.conv_bn_relu(pre, unit, gamma, beta)
            out.float().square().sum().backward()
            results.append((out, mean, var, gamma.grad, beta.grad))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("layout", ["plain", "channels_last"])
@pytest.mark.parametrize("name", ["flat_stride", "deconv"])
def test_opcheck(name, layout):
    case = BY_NAME[name]
    inputs = make_inputs(case, torch.float32, extras=True, layout=layout).require_grad()
    options = (list(case.stride), list(case.dilation), case.transposed, 1e-5, False)
    x, skip, weight, gamma, beta = (
        getattr(inputs, k) for k in ("x", "skip", "weight", "gamma", "beta")
    )
    operator = torch.ops.vinpaint.conv_bn_relu
    torch.library.opcheck(operator, (x, skip, weight, gamma, beta, inputs.residual, *options))
    x, skip, weight, gamma, beta = (t.detach() for t in (x, skip, weight, gamma, beta))
    out, pre, mean, var = operator(x, skip, weight, gamma, beta, None, *options)
    torch.library.opcheck(
        torch.ops.vinpaint._conv_bn_relu_backward,
        (torch.randn_like(out), x, skip, weight, gamma, beta, pre, mean, var, *options, True),
    )


def test_compile_fullgraph():
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=True).require_grad()
    wanted = (inputs.x, inputs.weight, inputs.gamma, inputs.residual)

    def step():
        out, mean, var = call(ops.conv_bn_relu, inputs, case)
        return out.square().sum() + mean.sum() * 0 + var.sum() * 0

    expected = torch.autograd.grad(step(), wanted)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(), wanted), expected)


def test_autocast_keeps_statistics_in_float32():
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=True).require_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out, mean, var = call(ops.conv_bn_relu, inputs, case)
    assert out.dtype == torch.bfloat16
    assert mean.dtype == var.dtype == torch.float32
    out.float().square().sum().backward()
    assert inputs.weight.grad.dtype == inputs.gamma.grad.dtype == torch.float32
    expected = call(reference.conv_bn_relu, inputs.double(), case)[0]
    assert_close(out.detach(), expected, torch.bfloat16)


@pytest.mark.parametrize("clip", [(0, 2, 4, 4), (1, 0, 4, 4), (1, 2, 0, 4)], ids=str)
def test_empty(clip):
    case = Case("empty", (1, 3, 3), clip=clip)
    inputs = make_inputs(case, torch.float32, extras=True).require_grad()
    out, mean, var = call(ops.conv_bn_relu, inputs, case)
    assert out.shape == inputs.residual.shape
    assert not mean.any()
    assert not var.any()
    out.sum().backward()
    assert inputs.x.grad.shape == inputs.x.shape
    assert not inputs.weight.grad.any()
    assert not inputs.gamma.grad.any()


def test_double_backward_says_so():
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=False).require_grad()
    out = call(ops.conv_bn_relu, inputs, case)[0].square().sum()
    (grad,) = torch.autograd.grad(out, inputs.x, create_graph=True)
    with pytest.raises(RuntimeError, match="conv_bn_relu: a second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": torch.ones(5)}, r"gamma must have Cout = 6 values, got \(5\)"),
        ({"beta": torch.ones(6, 1)}, r"beta must have Cout = 6 values, got \(6, 1\)"),
        ({"gamma": torch.ones(6, dtype=torch.int64)}, "gamma must be floating point, got Long"),
        ({"skip": None}, r"weight expects Cin = 5 \(x 5 \+ skip 0\), got 9"),
        ({"residual": torch.zeros(2, 6, 3, 9, 7).half()}, "residual must have x's dtype Float"),
        ({"eps": -1e-5}, "eps must be a finite number of at least 0, got -1e-05"),
        ({"eps": math.nan}, "eps must be a finite number of at least 0, got nan"),
        ({"eps": math.inf}, "eps must be a finite number of at least 0, got inf"),
        (
            {"gamma": torch.ones(6, device="meta")},
            "gamma must be on the device of x, cpu, got meta",
        ),
    ],
)
def test_bad_input(change, message):
    inputs = make_inputs(BY_NAME["plain"], torch.float32, extras=True)
    with pytest.raises(RuntimeError, match="conv_bn_relu: " + message):
        ops.conv_bn_relu(**inputs.tensors() | change)
