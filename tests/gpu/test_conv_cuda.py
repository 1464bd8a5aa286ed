# SPDX-License-Identifier: Apache-2.0
"""The convolution operators on a GPU: the same results and gradients as the reference."""

from __future__ import annotations

import pytest
import torch
from convolution_cases import CASES, make_inputs
from tolerances import assert_close

from vinpaint import ops, reference

pytestmark = pytest.mark.needs_cuda


def _on_device(inputs, case):
    tensors = {k: None if t is None else t.detach().cuda() for k, t in inputs.tensors().items()}
    common = {"skip": tensors["skip"], "residual": tensors["residual"], **case.options}
    return tensors, common


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_inference_matches_reference(case, dtype):
    inputs = make_inputs(case, dtype, extras=True)
    tensors, common = _on_device(inputs, case)
    wide = inputs.double()
    expected = reference.conv_bias_relu(
        wide.x, wide.weight, wide.beta, skip=wide.skip, residual=wide.residual, **case.options
    )
    with torch.backends.cudnn.flags(allow_tf32=False):
        out = ops.conv_bias_relu(tensors["x"], tensors["weight"], tensors["beta"], **common)
    assert_close(out.cpu(), expected, dtype)


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "one_pixel"], ids=str)
def test_training_matches_reference(case):
    inputs = make_inputs(case, torch.float32, extras=True)
    tensors, _ = _on_device(inputs, case)
    wide = inputs.double().require_grad()
    for tensor in tensors.values():
        tensor.requires_grad_()
    common = {"skip": tensors["skip"], "residual": tensors["residual"], **case.options}
    with torch.backends.cudnn.flags(allow_tf32=False):
        out, mean, var = ops.conv_bn_relu(
            tensors["x"], tensors["weight"], tensors["gamma"], tensors["beta"], **common
        )
        expected, wide_mean, wide_var = reference.conv_bn_relu(
            wide.x,
            wide.weight,
            wide.gamma,
            wide.beta,
            skip=wide.skip,
            residual=wide.residual,
            **case.options,
        )
        assert_close(out.detach().cpu(), expected.detach(), torch.float32)
        assert_close(mean.cpu(), wide_mean, torch.float32)
        assert_close(var.cpu(), wide_var, torch.float32)
        # Where rounding may have moved a value over the ReLU's edge, either slope is right.
        active = expected.detach() - wide.residual.detach()
        grad = torch.randn(out.shape) * ((active == 0) | (active > 0.1)).float()
        out.backward(grad.cuda())
        expected.backward(grad.double())
    for name, tensor in wide.tensors().items():
        error = (tensors[name].grad.cpu().double() - tensor.grad).norm()
        assert error < 1e-3 * tensor.grad.norm().clamp(min=1e-3), name
