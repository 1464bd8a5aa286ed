# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: the ``needs_cuda`` mark, a fixed seed."""

from __future__ import annotations

import os

import pytest
import torch


def _why_no_cuda() -> str | None:
    from vinpaint import _C

    if not torch.cuda.is_available():
        return "torch sees no CUDA GPU"
    if not _C.built_with_cuda():
        return "vinpaint was built without its CUDA kernels"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_cuda") is None:
        return
    reason = _why_no_cuda()
    if reason is None:
        return
    if os.environ.get("VINPAINT_REQUIRE_CUDA") == "1":
        pytest.fail(f"VINPAINT_REQUIRE_CUDA=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
