# SPDX-License-Identifier: Apache-2.0
"""csrc/cuda/implicit_gemm*, in the emulator, against float64: the convolution behind the operators."""

from __future__ import annotations

import pytest
import torch
from convolution_cases import (
    CASES,
    Case,
    call_inference,
    call_training,
    make_inputs,
    sure_of_relu,
)
from tolerances import TOLERANCES, assert_close

from vinpaint import reference

FLAT = (1, 3, 3)
# The cases of the operators have few channels, mostly odd. These fill the kernel's tiles: 16, 32, 64
# and 128 columns and their tails, several steps a tap, several blocks, both inputs, skipped taps.
WIDE = [
    Case("columns_16", channels=(16, 16, 16), clip=(1, 3, 9, 7)),
    Case("columns_32", kernel=FLAT, channels=(32, 8, 24), clip=(2, 2, 9, 12)),
    Case("columns_64", kernel=FLAT, channels=(64, 40, 56), clip=(1, 2, 9, 7)),
    Case("columns_128", kernel=FLAT, channels=(40, 64, 136), clip=(1, 2, 9, 7)),
    Case("several_steps", kernel=FLAT, channels=(104, 72, 72), clip=(1, 1, 12, 17)),
    Case("skipped_taps", dilation=(1, 8, 8), channels=(32, 32, 64), clip=(1, 3, 16, 16)),
    Case("no_tap_but_one", dilation=(16, 16, 16), channels=(32, 8, 64), clip=(1, 4, 8, 8)),
    Case("stride_wide", stride=(1, 2, 2), channels=(32, 8, 64), clip=(2, 3, 11, 9)),
    Case(
        "deconv_wide",
        kernel=(3, 4, 4),
        stride=(1, 2, 2),
        transposed=True,
        channels=(64, 32, 32),
        clip=(1, 2, 6, 9),
    ),
    Case("frames", kernel=(5, 5, 5), channels=(4, 3, 16), clip=(1, 4, 10, 9)),
    Case("guidance", kernel=FLAT, channels=(3, 2, 128), clip=(2, 1, 9, 7)),
    Case("last_layer", kernel=FLAT, channels=(32, 16, 3), clip=(1, 2, 16, 9)),
    Case("long", kernel=FLAT, channels=(8, 8, 8), clip=(1, 40, 3, 5)),
]
ALL = [
    case for case in CASES if case.name != "wide_blocks"
] + WIDE  # that one is for a CPU's caches
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def among_nan(t):
    """``t``, channels last in a storage that is NaN before and behind it."""
    if t is None:
        return None
    storage = torch.full((t.numel() + 128,), torch.nan, dtype=t.dtype)
    n, c, f, h, w = t.shape
    inside = storage[64:-64].view(n, f, h, w, c).permute(0, 4, 1, 2, 3)
    return inside.copy_(t)


def options_of(case):
    return list(case.stride), list(case.dilation), case.transposed


def tensors_of(inputs):
    return among_nan(inputs.x), among_nan(inputs.skip), among_nan(inputs.weight)


@pytest.mark.parametrize("extras", [False, True], ids=["one_input", "all_inputs"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ALL, ids=str)
def test_inference(emulated, case, dtype, extras):
    inputs = make_inputs(case, dtype, extras=extras)
    expected = call_inference(reference.conv_bias_relu, inputs.double(), case)
    out = emulated.conv_bias_relu(
        *tensors_of(inputs), inputs.beta, inputs.residual, *options_of(case), True, False
    )
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert_close(out, expected, dtype)


@pytest.mark.parametrize("case", WIDE, ids=str)
def test_tf32(emulated, case):
    """One product of factors rounded to 11 bits: less than float32, more than bfloat16."""
    inputs = make_inputs(case, torch.float32, extras=True)
    expected = call_inference(reference.conv_bias_relu, inputs.double(), case)
    out = emulated.conv_bias_relu(
        *tensors_of(inputs), inputs.beta, inputs.residual, *options_of(case), True, True
    )
    error = (out.double() - expected).abs().max() / expected.abs().max()
    assert TOLERANCES[torch.float32].value < error < TOLERANCES[torch.float16].value


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [c for c in ALL if c.name != "one_pixel"], ids=str)
def test_training(emulated, case, dtype):
    inputs = make_inputs(case, dtype, extras=True)
    wide = inputs.double().require_grad()
    per_channel = (inputs.gamma, inputs.beta)
    options = (*options_of(case), 1e-5, False)
    out, pre, mean, var = emulated.conv_bn_relu(
        *tensors_of(inputs), *per_channel, inputs.residual, *options
    )
    expected, wide_mean, wide_var = call_training(reference.conv_bn_relu, wide, case)
    assert_close(out, expected.detach(), dtype)
    assert_close(mean, wide_mean.detach(), dtype)
    assert_close(var, wide_var.detach(), dtype)
    assert_close(mean, pre.double().mean((0, 2, 3, 4)), torch.float32)
    assert_close(var, pre.double().var((0, 2, 3, 4), correction=0), torch.float32)

    sure = sure_of_relu(wide, case, wide_mean, wide_var)
    grad = (torch.randn(out.shape) * sure).to(dtype)
    gradients = emulated._conv_bn_relu_backward(
        grad, *tensors_of(inputs), *per_channel, pre, mean, var, *options, True
    )
    expected.backward(grad.double())
    for name, gradient in zip(("x", "skip", "weight", "gamma", "beta"), gradients, strict=True):
        reference_gradient = getattr(wide, name).grad
        error = (gradient.double() - reference_gradient).norm()
        limit = TOLERANCES[dtype].gradient
        assert error < limit * reference_gradient.norm().clamp(min=1e-3), name


def test_misaligned_inputs(emulated):
    """Sixteen bytes are copied at a time; a tensor may begin at any element."""
    case = Case("", kernel=FLAT, channels=(16, 8, 16), clip=(1, 2, 9, 7))
    inputs = make_inputs(case, torch.bfloat16, extras=True)
    expected = call_inference(reference.conv_bias_relu, inputs.double(), case)

    def moved(t):
        n, c, f, h, w = t.shape
        flat = torch.empty(t.numel() + 1, dtype=t.dtype)[1:]
        return flat.view(n, f, h, w, c).permute(0, 4, 1, 2, 3).copy_(t)

    out = emulated.conv_bias_relu(
        *(moved(t) for t in (inputs.x, inputs.skip, inputs.weight)),
        *(inputs.beta, moved(inputs.residual)),
        *options_of(case),
        *(True, False),
    )
    assert_close(out, expected, torch.bfloat16)


def test_same_bits_in_any_order(emulated, monkeypatch):
    case = Case("several", kernel=FLAT, channels=(64, 8, 72), clip=(2, 2, 17, 12))
    inputs = make_inputs(case, torch.bfloat16, extras=True)
    results = []
    for seed in ("1", "2", "3"):
        monkeypatch.setenv("VINPAINT_EMULATOR_SEED", seed)
        results.append(
            emulated.conv_bn_relu(
                *tensors_of(inputs),
                *(inputs.gamma, inputs.beta, inputs.residual),
                *options_of(case),
                *(1e-5, False),
            )
        )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("case", [c for c in WIDE if c.channels[0] % 8 == 0], ids=str)
def test_no_bank_conflicts(emulated, case):
    inputs = make_inputs(case, torch.bfloat16, extras=False)
    emulated._counters()
    emulated.conv_bias_relu(*tensors_of(inputs), None, None, *options_of(case), False, False)
    matrix_loads, conflicts, _ = emulated._counters()
    assert matrix_loads > 0
    assert conflicts == 0


@pytest.mark.parametrize(("dilation", "live"), [(1, 4 * 9), (8, 4 * 4), (16, 4 * 1)], ids=str)
def test_taps_on_padding_are_not_computed(emulated, dilation, live):
    """Two frames of 16 x 16 in four blocks: at a dilation of 8, four of nine taps reach the input."""
    case = Case(
        "", kernel=FLAT, dilation=(1, dilation, dilation), clip=(1, 2, 16, 16), channels=(32, 8, 16)
    )
    inputs = make_inputs(case, torch.bfloat16, extras=False)
    emulated._counters()
    emulated.conv_bias_relu(*tensors_of(inputs), None, None, *options_of(case), False, False)
    products_of_a_tap = 128 * 32 * 16
    assert emulated._counters()[2] == live * products_of_a_tap


def test_too_many_pixels(emulated):
    x = torch.empty(1, 1, 1, 1, 1, dtype=torch.bfloat16).expand(1, 1, 2**11, 2**10, 2**10)
    weight = torch.ones(1, 1, 1, 1, 1, dtype=torch.bfloat16)
    message = "a clip may have at most 2147483647 pixels on a GPU, got F \\* H \\* W = 2147483648"
    with pytest.raises(RuntimeError, match=message):
        emulated.conv_bias_relu(x, None, weight, None, None, [1] * 3, [1] * 3, False, True, False)


BIG = 2**31


@pytest.mark.parametrize(
    ("x", "skip", "weight", "dilation", "message"),
    [
        ((BIG, 1, 1, 1, 1), None, (1, 1, 1, 1, 1), 1, "x's batch may be at most 2147483647"),
        ((1, BIG, 1, 1, 1), None, (1, BIG, 1, 1, 1), 1, "x's channels may be at most"),
        ((1, 1, 1, 1, 1), (1, BIG, 1, 1, 1), (1, BIG + 1, 1, 1, 1), 1, "skip's channels may be"),
        ((1, 1, 1, 1, 1), None, (BIG, 1, 1, 1, 1), 1, "weight's output channels may be at most"),
        (
            (1, 1, 1, 2**20, 1),
            None,
            (1, 1, 1, 3, 1),
            2**29 - 1,
            "at most 1073741823 pixels along H on a GPU, got 1074790398",
        ),
    ],
)
def test_what_32_bits_do_not_count_is_refused(emulated, x, skip, weight, dilation, message):
    x, skip, weight = (
        None if shape is None else torch.ones(1, dtype=torch.bfloat16).expand(shape)
        for shape in (x, skip, weight)
    )
    dilations = [1, dilation, 1]
    with pytest.raises(RuntimeError, match="conv_bias_relu: .*" + message):
        emulated.conv_bias_relu(x, skip, weight, None, None, [1] * 3, dilations, False, True, False)


@pytest.mark.parametrize("dilation", [2**24, 2**29 - 16])
def test_taps_far_outside(emulated, dilation):
    """The places that they would read, and twice these, are computed in 32 bits."""
    case = Case("", kernel=FLAT, dilation=(1, dilation, dilation), channels=(16, 8, 16))
    near = Case("", kernel=FLAT, dilation=(1, 32, 32), channels=(16, 8, 16))
    inputs = make_inputs(case, torch.bfloat16, extras=False)
    far, expected = (call_both_ways(emulated, inputs, options_of(c)) for c in (case, near))
    assert all(torch.equal(a, b) for a, b in zip(far, expected, strict=True))


def call_both_ways(emulated, inputs, options):
    """The convolution and the gradients of its inputs."""
    x, skip, weight = tensors_of(inputs)
    out = emulated.conv_bias_relu(x, skip, weight, None, None, *options, False, False)
    grads = emulated._conv_bias_relu_backward(
        out, x, skip, weight, out, *options, False, False, True, False
    )
    return out, *grads[:3]


def test_double_is_refused(emulated):
    x, weight = torch.ones(1, 1, 1, 1, 1).double(), torch.ones(1, 1, 1, 1, 1).double()
    with pytest.raises(RuntimeError, match="on a GPU x must be float32, bfloat16 or float16"):
        emulated.conv_bias_relu(x, None, weight, None, None, [1] * 3, [1] * 3, False, True, False)
