# SPDX-License-Identifier: Apache-2.0
"""How far a result may lie from the float64 reference, by the dtype it was computed in.

Errors are taken relative to the largest value of the reference. ``value`` bounds one operator's output:
a few roundings of the stored type, and for float32 the sum over a kernel's taps. ``gradient`` bounds a
gradient, whose sums run over all pixels and, in short types, over factors that were themselves rounded.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tolerance(NamedTuple):
    value: float
    gradient: float


TOLERANCES = {
    torch.float64: Tolerance(value=1e-12, gradient=1e-11),  # order of the sums only
    torch.float32: Tolerance(value=2e-5, gradient=1e-4),  # 24 bits, sums of some thousands
    torch.float16: Tolerance(value=3e-3, gradient=1e-2),  # 11 bits: 5e-4 a rounding
    torch.bfloat16: Tolerance(value=2e-2, gradient=5e-2),  # 8 bits: 4e-3 a rounding
}


def assert_close(
    actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, *, gradient: bool = False
) -> None:
    """Compares with the float64 ``expected`` under the tolerance of ``dtype``."""
    tolerance = TOLERANCES[dtype].gradient if gradient else TOLERANCES[dtype].value
    assert actual.shape == expected.shape
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(
        actual.double().cpu(), expected.double().cpu(), rtol=0, atol=tolerance * scale
    )
