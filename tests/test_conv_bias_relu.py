# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import ctypes
import pickle

import pytest
import torch
from convolution_cases import BY_NAME, CASES, DTYPES, WIDE, Case, make_inputs
from convolution_cases import call_inference as call
from tolerances import assert_close

from vinpaint import _C, ops, reference
from vinpaint.nn.layers import ConvBNReLU


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("extras", [False, True])
def test_matches_reference(case, dtype, extras):
    inputs = make_inputs(case, dtype, extras=extras)
    out = call(ops.conv_bias_relu, inputs, case)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert_close(out, call(reference.conv_bias_relu, inputs.double(), case), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["channels_last", "strided", "offset"])
@pytest.mark.parametrize("name", ["stride", "flat", "deconv", "wide", "wide_deconv"])
def test_layouts(name, layout, dtype):
    case = BY_NAME[name]
    inputs = make_inputs(case, dtype, extras=True, layout=layout)
    expected = call(reference.conv_bias_relu, inputs.double(), case)
    assert_close(call(ops.conv_bias_relu, inputs, case), expected, dtype)


@pytest.mark.parametrize("case", WIDE, ids=str)
@pytest.mark.parametrize("extras", [False, True])
def test_bfloat16_errors_are_a_few_roundings(case, extras):
    # Rounded sums of inputs and of taps: more than the one rounding of a direct convolution's output.
    inputs = make_inputs(case, torch.bfloat16, extras=extras)
    bias = inputs.beta.bfloat16()
    options = {"skip": inputs.skip, "relu": False, **case.options}
    out = ops.conv_bias_relu(inputs.x, inputs.weight, bias, **options).double()
    wide = inputs.double()
    exact = reference.conv_bias_relu(
        wide.x, wide.weight, bias.double(), **{**options, "skip": wide.skip}
    )
    rounding = (exact.bfloat16().double() - exact).norm()
    assert (out - exact).norm() < 3.2 * rounding


def takes_minimal_filtering():
    features = _C.cpu_features()
    return "avx512_bf16" in features and "amx_bf16" not in features


@pytest.mark.skipif(not takes_minimal_filtering(), reason="the convolutions are oneDNN's here")
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_same_bits_for_any_thread_count(case):
    inputs = make_inputs(case, torch.bfloat16, extras=True)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            out = call(ops.conv_bias_relu, inputs, case)
            gradients = torch.ops.vinpaint._conv_bias_relu_backward(
                out,
                inputs.x,
                inputs.skip,
                inputs.weight,
                out,
                case.stride,
                case.dilation,
                case.transposed,
                True,
                False,
                True,
                True,
            )
            results.append((out, *gradients))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("bias", [torch.randn(64)[::2], torch.ones(1).expand(32)])
@pytest.mark.parametrize("name", ["flat", "two_columns_stride"])
def test_a_bias_may_have_any_strides(name, bias):
    case = BY_NAME[name]
    inputs = make_inputs(case, torch.float32, extras=True)
    options = {"skip": inputs.skip, **case.options}
    out = ops.conv_bias_relu(inputs.x, inputs.weight, bias, **options)
    dense = ops.conv_bias_relu(inputs.x, inputs.weight, bias.clone().contiguous(), **options)
    assert torch.equal(out, dense)


@pytest.mark.parametrize("name", ["flat", "deconv"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("extras", [False, True])
def test_without_bias_and_relu(name, dtype, extras):
    case = BY_NAME[name]
    inputs = make_inputs(case, dtype, extras=extras)
    arguments = {"skip": inputs.skip, "residual": inputs.residual, "relu": False, **case.options}
    out = ops.conv_bias_relu(inputs.x, inputs.weight, **arguments)
    wide = inputs.double()
    arguments |= {"skip": wide.skip, "residual": wide.residual}
    assert_close(out, reference.conv_bias_relu(wide.x, wide.weight, **arguments), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "name", ["stride", "dilation", "flat", "deconv", "deconv_flat", *(c.name for c in WIDE)]
)
@pytest.mark.parametrize("relu", [False, True])
def test_gradients_match_reference(name, dtype, relu):
    case = BY_NAME[name]
    inputs = make_inputs(case, dtype, extras=True)
    wide = inputs.double().require_grad()
    out = call(ops.conv_bias_relu, inputs.require_grad(), case, relu=relu)
    expected = call(reference.conv_bias_relu, wide, case, relu=relu)
    # Where rounding may have moved a value over the ReLU's edge, either slope is right.
    sure = (expected - wide.residual).abs() > 0.05
    grad = torch.randn(out.shape, dtype=torch.float64).to(dtype) * sure
    out.backward(grad)
    expected.backward(grad.double())
    for name_, t in inputs.tensors().items():
        if name_ != "gamma":
            assert t.grad.dtype == t.dtype
            assert_close(t.grad, wide.tensors()[name_].grad, dtype, gradient=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (5, 5, 5), (1, 4, 4)], ids=str)
@pytest.mark.parametrize("clip", [(2, 3, 4, 1), (1, 4, 1, 5), (2, 2, 6, 6), (1, 1, 2, 2)], ids=str)
def test_weight_gradient_where_the_input_is_smaller_than_the_kernel(dtype, kernel, clip):
    transposed = kernel[1] == 4
    for stride in ((1, 2, 2),) if transposed else ((1, 1, 1), (1, 2, 2)):
        case = Case("small", kernel, stride, (1, 1, 1), transposed, clip, (16, 16, 16))
        inputs = make_inputs(case, dtype, extras=False)
        wide = inputs.double().require_grad()
        out = call(ops.conv_bias_relu, inputs.require_grad(), case, relu=False)
        grad = torch.randn(out.shape).to(dtype)
        # Freed memory full of NaN, so that whoever reads what nobody wrote is found out.
        rubbish = [torch.full((1 << n,), torch.nan) for n in range(8, 18) for _ in range(3)]
        rubbish.clear()
        out.backward(grad)
        call(reference.conv_bias_relu, wide, case, relu=False).backward(grad.double())
        assert_close(inputs.weight.grad, wide.weight.grad, dtype, gradient=True)


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradcheck(extras, transposed):
    kernel, stride = ((1, 4, 4), (1, 2, 2)) if transposed else ((3, 3, 1), (1, 2, 1))
    case = Case("small", kernel, stride, (1, 1, 1), transposed, (1, 2, 3, 2), (1, 1, 2))
    inputs = make_inputs(case, torch.float64, extras=extras).require_grad()
    names = [k for k, t in inputs.tensors().items() if t is not None and k != "gamma"]

    def function(*tensors):
        inputs.__dict__.update(zip(names, tensors, strict=True))
        return call(ops.conv_bias_relu, inputs, case)

    torch.autograd.gradcheck(function, tuple(inputs.tensors()[k] for k in names))


@pytest.mark.parametrize("only", ["x", "skip", "weight", "beta", "residual"])
def test_gradient_of_one_input_alone(only):
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=True)
    inputs.tensors()[only].requires_grad_()
    call(ops.conv_bias_relu, inputs, case).sum().backward()
    assert [k for k, t in inputs.tensors().items() if t.grad is not None] == [only]


class _Heap(ctypes.Structure):
    """What glibc's mallinfo2 gives."""

    _fields_ = [(f"field_{i}", ctypes.c_size_t) for i in range(10)]


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc counts its heap"
)
@pytest.mark.parametrize("name", ["flat_stride", "deconv_flat", "wide", "wide_deconv"])
def test_no_call_keeps_memory(name):
    case = BY_NAME[name]
    inputs = make_inputs(case, torch.float32, extras=True)
    count = ctypes.CDLL(None).mallinfo2
    count.restype = _Heap

    def grown(calls: int) -> int:
        before = count().field_7  # bytes in use
        for _ in range(calls):
            call(ops.conv_bias_relu, inputs, case)
        return count().field_7 - before

    grown(100)
    assert min(grown(1000) for _ in range(3)) < 2000


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, *WIDE], ids=str)
@pytest.mark.parametrize("extras", [False, True])
def test_a_cached_weight_gives_the_same_bits(case, dtype, extras):
    inputs = make_inputs(case, dtype, extras=extras)
    expected = call(ops.conv_bias_relu, inputs, case)
    cache = ops.WeightCache()
    for _ in range(2):
        assert torch.equal(call(ops.conv_bias_relu, inputs, case, cache=cache), expected)


@pytest.mark.parametrize("name", ["flat_stride", "wide", "wide_deconv"])
def test_a_changed_weight_is_prepared_anew(name):
    case = BY_NAME[name]
    inputs = make_inputs(case, torch.float32, extras=True)
    cache = ops.WeightCache()
    first = call(ops.conv_bias_relu, inputs, case, cache=cache)
    inputs.weight.mul_(2)
    changed = call(ops.conv_bias_relu, inputs, case, cache=cache)
    assert torch.equal(changed, call(ops.conv_bias_relu, inputs, case))
    assert not torch.equal(changed, first)
    inputs.weight = inputs.weight / 2
    assert torch.equal(call(ops.conv_bias_relu, inputs, case, cache=cache), first)


def _prepared(cache, inputs, case):
    geometry = case.stride, case.dilation, case.transposed
    return cache.get(inputs.x, inputs.skip, inputs.weight, *geometry)


@pytest.mark.parametrize("name", ["flat_stride", "wide", "wide_deconv"])
def test_a_weight_is_prepared_once(name):
    case = BY_NAME[name]
    inputs = make_inputs(case, torch.float32, extras=True)
    cache = ops.WeightCache()
    kept = _prepared(cache, inputs, case)
    assert kept
    assert _prepared(cache, inputs, case) is kept
    for copied in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert _prepared(copied, inputs, case) is not kept
    cache.clear()
    assert _prepared(cache, inputs, case) is not kept


def test_one_weight_may_be_read_in_two_ways():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 64, 3, 9, 8), torch.randn(32, 64, 3, 3, 3)
    cache = ops.WeightCache()
    whole = ops.conv_bias_relu(x, weight, cache=cache)
    parts = ops.conv_bias_relu(x[:, :32], weight, skip=x[:, 32:], cache=cache)
    dilated = ops.conv_bias_relu(x, weight, dilation=(1, 2, 2), cache=cache)
    assert torch.equal(whole, ops.conv_bias_relu(x, weight))
    assert torch.equal(parts, ops.conv_bias_relu(x[:, :32], weight, skip=x[:, 32:]))
    assert torch.equal(dilated, ops.conv_bias_relu(x, weight, dilation=(1, 2, 2)))


def test_a_layer_that_is_moved_prepares_its_weight_anew():
    layer = ConvBNReLU(40, 64, (1, 3, 3))
    layer.fold()
    x = torch.randn(1, 40, 1, 9, 8)
    exact = layer(x)
    rough = layer.bfloat16()(x.bfloat16())
    assert rough.dtype == torch.bfloat16
    back = layer.float()(x)
    assert not torch.equal(back, exact)  # the weight went through bfloat16
    assert torch.equal(back, ops.conv_bias_relu(x, layer.weight, layer.bias))


def test_a_cache_stands_aside_while_learning():
    case = BY_NAME["wide"]
    inputs = make_inputs(case, torch.float32, extras=False).require_grad()
    call(ops.conv_bias_relu, inputs, case, cache=ops.WeightCache()).sum().backward()
    assert inputs.weight.grad is not None


@pytest.mark.parametrize("name", ["flat_stride", "wide", "wide_deconv"])
def test_a_weight_prepared_for_something_else_is_refused(name):
    case = BY_NAME[name]
    inputs = make_inputs(case, torch.float32, extras=True)
    geometry = (list(case.stride), list(case.dilation), case.transposed)
    prepare, convolve = (
        torch.ops.vinpaint._prepare_weight,
        torch.ops.vinpaint._conv_bias_relu_prepared,
    )
    prepared = prepare(inputs.x, inputs.skip, inputs.weight, *geometry)
    assert prepared
    other = BY_NAME["pointwise"]
    strange = make_inputs(other, torch.float32, extras=False)
    wrong = prepare(strange.x, None, strange.weight, [1, 1, 1], [1, 1, 1], False)
    assert (
        torch.ops.vinpaint._prepare_weight(
            inputs.x.double(), inputs.skip.double(), inputs.weight.double(), *geometry
        )
        == []
    )
    for given in ([], wrong, [torch.zeros(3, dtype=torch.uint8)], [*prepared, *prepared]):
        with pytest.raises(RuntimeError, match="prepared must be what _prepare_weight gives"):
            convolve(inputs.x, inputs.skip, inputs.weight, given, None, None, *geometry, True)


@pytest.mark.parametrize("layout", ["plain", "channels_last"])
@pytest.mark.parametrize("name", ["flat_stride", "deconv"])
def test_opcheck(name, layout):
    case = BY_NAME[name]
    inputs = make_inputs(case, torch.float32, extras=True, layout=layout)
    options = (list(case.stride), list(case.dilation), case.transposed, True, False)
    operator = torch.ops.vinpaint.conv_bias_relu
    plain = (inputs.x, inputs.skip, inputs.weight, inputs.beta, inputs.residual, *options)
    torch.library.opcheck(operator, plain)
    inputs.residual = None
    learning = [t.requires_grad_() for t in (inputs.x, inputs.skip, inputs.weight, inputs.beta)]
    torch.library.opcheck(operator, (*learning, None, *options))
    x, skip, weight, bias = (t.detach() for t in learning)
    out = operator(x, skip, weight, bias, None, *options)
    torch.library.opcheck(
        torch.ops.vinpaint._conv_bias_relu_backward,
        (torch.randn_like(out), x, skip, weight, out, *options, True, True),
    )


def test_compile_fullgraph():
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=True).require_grad()

    def step():
        return call(ops.conv_bias_relu, inputs, case).square().sum()

    expected = torch.autograd.grad(step(), (inputs.x, inputs.weight, inputs.residual))
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    actual = torch.autograd.grad(compiled(), (inputs.x, inputs.weight, inputs.residual))
    torch.testing.assert_close(actual, expected)


def test_export():
    case = BY_NAME["deconv"]
    inputs = make_inputs(case, torch.float32, extras=True)

    class Layer(torch.nn.Module):
        def forward(self, x, skip):
            return ops.conv_bias_relu(
                x, inputs.weight, inputs.beta, skip=skip, residual=inputs.residual, **case.options
            )

    exported = torch.export.export(Layer(), (inputs.x, inputs.skip))
    assert "vinpaint.conv_bias_relu" in str(exported.graph)
    assert torch.equal(
        exported.module()(inputs.x, inputs.skip), call(ops.conv_bias_relu, inputs, case)
    )


def test_inference_mode():
    case = BY_NAME["deconv"]
    inputs = make_inputs(case, torch.float32, extras=True).require_grad()
    with torch.inference_mode():
        out = call(ops.conv_bias_relu, inputs, case)
    assert out.is_inference()
    assert_close(out, call(ops.conv_bias_relu, inputs, case).detach(), torch.float32)


def test_output_may_be_changed_in_place():
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=False).require_grad()
    call(ops.conv_bias_relu, inputs, case, relu=False).mul_(2).sum().backward()
    assert inputs.x.grad is not None


def test_autocast():
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=True).require_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = call(ops.conv_bias_relu, inputs, case)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert inputs.weight.grad.dtype == torch.float32
    expected = call(reference.conv_bias_relu, inputs.double(), case)
    assert_close(out.detach(), expected, torch.bfloat16)


@pytest.mark.parametrize("name", ["flat", "deconv"])
@pytest.mark.parametrize("clip", [(0, 2, 4, 4), (1, 0, 4, 4), (1, 2, 0, 4)], ids=str)
def test_empty(name, clip):
    case = Case(
        "empty", BY_NAME[name].kernel, BY_NAME[name].stride, (1, 1, 1), name == "deconv", clip
    )
    inputs = make_inputs(case, torch.float32, extras=True).require_grad()
    out = call(ops.conv_bias_relu, inputs, case)
    assert out.shape == inputs.residual.shape
    out.sum().backward()
    assert inputs.x.grad.shape == inputs.x.shape
    assert not inputs.weight.grad.any()
    assert not inputs.beta.grad.any()


def test_double_backward_says_so():
    case = BY_NAME["flat"]
    inputs = make_inputs(case, torch.float32, extras=False).require_grad()
    out = call(ops.conv_bias_relu, inputs, case).square().sum()
    (grad,) = torch.autograd.grad(out, inputs.x, create_graph=True)
    with pytest.raises(RuntimeError, match="conv_bias_relu: a second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 4, 5, 6)}, r"x must have 5 dimensions \(N, C, F, H, W\), got 4"),
        ({"x": torch.zeros(1, 2, 3, 4, 5, dtype=torch.int32)}, "x must be float32, .* got Int"),
        ({"weight": torch.zeros(6, 4, 3, 3, 3)}, r"expects Cin = 9 \(x 5 \+ skip 4\), got 4"),
        ({"weight": torch.zeros(6, 9, 3, 2, 3)}, "a kernel must be odd, got 2 along H"),
        ({"weight": torch.zeros(6, 9, 3, 3, 3).double()}, "weight must have x's dtype Float, got"),
        ({"skip": torch.zeros(2, 4, 3, 9, 6)}, r"skip must match x \(2, 5, 3, 9, 7\) in all but"),
        ({"skip": torch.zeros(2, 4, 3, 9, 7).half()}, "skip must have x's dtype Float, got Half"),
        ({"residual": torch.zeros(2, 6, 3, 9, 1)}, r"the output's shape \(2, 6, 3, 9, 7\), got"),
        ({"bias": torch.zeros(5)}, r"bias must have Cout = 6 values, got \(5\)"),
        ({"stride": (1, 1)}, r"stride must have 3 values \(F, H, W\), got 2"),
        ({"stride": (1, 3, 1)}, "stride along H must be 1 or 2, got 3"),
        ({"dilation": (1, 1, 0)}, "dilation along W must be at least 1, got 0"),
        (
            {"dilation": (1, 2**62, 1)},
            "dilation along H may be at most 536870911 with a kernel of 3",
        ),
        (
            {"x": torch.zeros(2, 5, 3, 9, 7, device="meta")},
            "weight must be on the device of x, meta, got",
        ),
        (
            {"weight": torch.zeros(6, 9, 3, 3, 3, device="meta")},
            "weight must be on the device of x, cpu",
        ),
        (
            {"skip": torch.zeros(2, 4, 3, 9, 7, device="meta")},
            "skip must be on the device of x, cpu, got",
        ),
        ({"bias": torch.zeros(6, device="meta")}, "bias must be on the device of x, cpu, got meta"),
        (
            {"residual": torch.zeros(2, 6, 3, 9, 7, device="meta")},
            "residual must be on the device of x",
        ),
        ({"weight": torch.zeros(9, 6, 3, 4, 4), "transposed": True}, "must exceed its stride 1 by"),
    ],
)
def test_bad_input(change, message):
    inputs = make_inputs(BY_NAME["plain"], torch.float32, extras=True)
    arguments = {
        "x": inputs.x,
        "weight": inputs.weight,
        "bias": inputs.beta,
        "skip": inputs.skip,
        "residual": inputs.residual,
    }
    with pytest.raises(RuntimeError, match="conv_bias_relu: .*" + message):
        ops.conv_bias_relu(**arguments | change)
