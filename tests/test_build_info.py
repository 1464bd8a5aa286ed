# SPDX-License-Identifier: Apache-2.0
"""What the compiled module says about itself, and that importing it costs no GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from vinpaint import _C


def test_types_and_consistency():
    architectures = _C.cuda_architectures()
    assert all(a.isdigit() for a in architectures)
    assert _C.built_with_cuda() == bool(architectures) == bool(_C.cuda_toolkit_version())
    assert _C.torch_version().split(".")[0].isdigit()
    assert _C.compiler()
    assert all(isinstance(feature, str) for feature in _C.cpu_features())


def test_cpu_features_agree_with_torch():
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512":
        assert "avx512f" in _C.cpu_features()
    if capability in ("AVX2", "AVX512"):
        assert "avx2" in _C.cpu_features()


@pytest.mark.parametrize("op", ["conv_bn_relu", "conv_bias_relu", "masked_l1"])
def test_every_operator_has_a_cpu_implementation(op):
    for name in (f"vinpaint::{op}", f"vinpaint::_{op}_backward"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU")
        on_cuda = torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")
        assert on_cuda == _C.built_with_cuda()


def test_import_creates_no_cuda_context(tmp_path):
    program = "import torch, vinpaint.ops; raise SystemExit(torch.cuda.is_initialized())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == 0
