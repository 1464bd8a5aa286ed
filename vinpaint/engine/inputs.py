# SPDX-License-Identifier: Apache-2.0
"""What an engine is given, checked before a runtime sees it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vinpaint.errors import InputError


def check_inputs(
    given: Sequence[Tensor],
    names: Sequence[str],
    expected: Sequence[tuple[Sequence[int], torch.dtype, torch.device]],
) -> None:
    """Raise InputError unless each input is a tensor of its shape, type and device."""
    if len(given) != len(names):
        raise InputError(f"engine: expected {', '.join(names)}, got {len(given)} inputs")
    for tensor, name, (shape, dtype, device) in zip(given, names, expected, strict=True):
        if not isinstance(tensor, Tensor):
            raise InputError(f"engine: {name}: expected a tensor, got {type(tensor).__name__}")
        facts = tuple(tensor.shape), tensor.dtype, tensor.device
        if facts != (tuple(shape), dtype, device):
            raise InputError(
                f"engine: {name}: expected {dtype} {tuple(shape)} on {device}, got {facts[1]} {facts[0]} on {facts[2]}"
            )
