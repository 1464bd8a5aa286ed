# SPDX-License-Identifier: Apache-2.0
"""The choice of algorithms behind the convolution operators: each gives the same results."""

from __future__ import annotations

import pytest
import torch
from convolution_cases import Case, call_inference, call_training, make_inputs, sure_of_relu
from tolerances import TOLERANCES, assert_close

from vinpaint import reference

CASES = [
    Case("wide", kernel=(1, 3, 3), channels=(64, 64, 64), clip=(1, 2, 9, 12)),
    Case(
        "deconv_wide",
        kernel=(1, 4, 4),
        stride=(1, 2, 2),
        transposed=True,
        channels=(64, 64, 64),
        clip=(1, 1, 6, 9),
    ),
    Case("stride_narrow", stride=(1, 2, 2), channels=(5, 4, 6)),
]


@pytest.fixture
def operators(emulated):
    yield emulated
    emulated._force_algorithm("")


@pytest.mark.parametrize("algorithm", ["portable", "hopper", "library"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_algorithm(operators, case, dtype, algorithm):
    operators._force_algorithm(algorithm)
    inputs = make_inputs(case, dtype, extras=True)
    wide = inputs.double().require_grad()
    options = (list(case.stride), list(case.dilation), case.transposed)
    tensors = (inputs.x, inputs.skip, inputs.weight)

    out = operators.conv_bias_relu(*tensors, inputs.beta, inputs.residual, *options, True, False)
    expected = call_inference(reference.conv_bias_relu, wide, case)
    assert_close(out, expected.detach(), dtype)

    per_channel = (inputs.gamma, inputs.beta)
    out, pre, mean, var = operators.conv_bn_relu(
        *tensors, *per_channel, inputs.residual, *options, 1e-5, False
    )
    expected, wide_mean, wide_var = call_training(reference.conv_bn_relu, wide, case)
    assert_close(out, expected.detach(), dtype)
    assert_close(mean, wide_mean.detach(), dtype)
    assert_close(var, wide_var.detach(), dtype)

    sure = sure_of_relu(wide, case, wide_mean, wide_var)
    grad = (torch.randn(out.shape) * sure).to(dtype)
    gradients = operators._conv_bn_relu_backward(
        grad, *tensors, *per_channel, pre, mean, var, *options, 1e-5, False, True
    )
    expected.backward(grad.double())
    for name, gradient in zip(("x", "skip", "weight", "gamma", "beta"), gradients, strict=True):
        reference_gradient = getattr(wide, name).grad
        error = (gradient.double() - reference_gradient).norm()
        assert error < TOLERANCES[dtype].gradient * reference_gradient.norm(), name


@pytest.mark.parametrize("algorithm", ["portable", "hopper", "library"])
def test_a_value_that_is_no_number_stays_one(operators, algorithm):
    operators._force_algorithm(algorithm)
    x = torch.zeros(1, 64, 1, 4, 4, dtype=torch.float16)
    x[0, 0, 0, 1, 2] = torch.nan
    weight = torch.ones(64, 64, 1, 1, 1, dtype=torch.float16)
    out = operators.conv_bias_relu(
        x, None, weight, None, None, [1] * 3, [1] * 3, False, True, False
    )
    assert out[0, :, 0, 1, 2].isnan().all()
    assert out.isnan().sum() == 64


def test_a_product_is_measured_once(operators):
    case = CASES[0]
    inputs = make_inputs(case, torch.bfloat16, extras=True)

    def run():
        return operators.conv_bias_relu(
            *(inputs.x, inputs.skip, inputs.weight, inputs.beta, None),
            *(list(case.stride), list(case.dilation), case.transposed),
            *(True, False),
        )

    plain = run()
    before = operators._measure_products(True)
    try:
        measured = run()
        assert operators._measure_products(True) == before + 1
        run()
    finally:
        assert operators._measure_products(False) == before + 1
    assert_close(measured, plain.double(), torch.bfloat16)
