# SPDX-License-Identifier: Apache-2.0
"""The convolution operators on a GPU: the same results and gradients as the reference."""

from __future__ import annotations

import pytest
import torch
from convolution_cases import CASES, Inputs, call_inference, call_training, make_inputs
from tolerances import assert_close

from vinpaint import ops, reference

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


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "one_pixel"], ids=str)
def test_training_matches_reference(case):
    inputs = make_inputs(case, torch.float32, extras=True)
    ours, wide = _on_device(inputs).require_grad(), inputs.double().require_grad()
    with torch.backends.cudnn.flags(allow_tf32=False):
        out, mean, var = call_training(ops.conv_bn_relu, ours, case)
        expected, wide_mean, wide_var = call_training(reference.conv_bn_relu, wide, case)
        assert_close(out.detach().cpu(), expected.detach(), torch.float32)
        assert_close(mean.cpu(), wide_mean, torch.float32)
        assert_close(var.cpu(), wide_var, torch.float32)
        # Where rounding may have moved a value over the ReLU's edge, either slope is right.
        active = expected.detach() - wide.residual.detach()
        grad = torch.randn(out.shape) * ((active == 0) | (active > 0.1)).float()
        out.backward(grad.cuda())
        expected.backward(grad.double())
    for name, tensor in wide.tensors().items():
        error = (ours.tensors()[name].grad.cpu().double() - tensor.grad).norm()
        assert error < 1e-3 * tensor.grad.norm().clamp(min=1e-3), name
