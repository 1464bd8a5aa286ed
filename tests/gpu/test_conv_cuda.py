# SPDX-License-Identifier: Apache-2.0
"""The convolution operators on a GPU: the same results and gradients as the reference."""

from __future__ import annotations

import pytest
import torch
from convolution_cases import (
    CASES,
    Case,
    Inputs,
    call_inference,
    call_training,
    make_inputs,
    sure_of_relu,
)
from tolerances import TOLERANCES, assert_close

from vinpaint import _C, ops, reference

pytestmark = pytest.mark.needs_cuda


def _on_device(inputs):
    return Inputs(
        **{k: None if t is None else t.detach().cuda() for k, t in inputs.tensors().items()}
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_inference_matches_reference(case, dtype):
    inputs = make_inputs(case, dtype, extras=True)
    expected = call_inference(reference.conv_bias_relu, inputs.double(), case)
    with torch.backends.cudnn.flags(allow_tf32=False):
        out = call_inference(ops.conv_bias_relu, _on_device(inputs), case)
    assert_close(out.cpu(), expected, dtype)


# Wide enough for every algorithm.
WIDE = [
    Case("wide", kernel=(1, 3, 3), channels=(64, 64, 128), clip=(2, 3, 30, 54)),
    Case("wide_3d", dilation=(1, 8, 8), channels=(128, 64, 192), clip=(1, 5, 16, 16)),
    Case("wide_stride", stride=(1, 2, 2), channels=(64, 64, 64), clip=(1, 4, 33, 17)),
    Case(
        "wide_deconv",
        kernel=(3, 4, 4),
        stride=(1, 2, 2),
        transposed=True,
        channels=(128, 64, 64),
        clip=(1, 3, 15, 27),
    ),
]


@pytest.fixture
def algorithm(request):
    _C.force_algorithm(request.param)
    yield request.param
    _C.force_algorithm("")


@pytest.mark.usefixtures("algorithm")
@pytest.mark.parametrize("algorithm", ["portable", "hopper", "library"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [*WIDE, *(c for c in CASES if c.name != "one_pixel")], ids=str)
def test_training_matches_reference(case, dtype):
    inputs = make_inputs(case, dtype, extras=True)
    ours, wide = _on_device(inputs).require_grad(), inputs.double().require_grad()
    with torch.backends.cudnn.flags(allow_tf32=False):
        out, mean, var = call_training(ops.conv_bn_relu, ours, case)
        expected, wide_mean, wide_var = call_training(reference.conv_bn_relu, wide, case)
        assert_close(out.detach().cpu(), expected.detach(), dtype)
        assert_close(mean.cpu(), wide_mean.detach(), dtype)
        assert_close(var.cpu(), wide_var.detach(), dtype)
        sure = sure_of_relu(wide, case, wide_mean, wide_var)
        grad = (torch.randn(out.shape) * sure).to(dtype)
        out.backward(grad.cuda())
        expected.backward(grad.double())
    for name, tensor in wide.tensors().items():
        error = (ours.tensors()[name].grad.cpu().double() - tensor.grad).norm()
        assert error < TOLERANCES[dtype].gradient * tensor.grad.norm().clamp(min=1e-3), name
