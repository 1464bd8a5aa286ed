# SPDX-License-Identifier: Apache-2.0
"""Where to compute and in what: the choices behind ``device="auto"`` and ``precision="auto"``."""

from __future__ import annotations

import ctypes
import sys
from typing import Literal

import torch

from vinpaint._extension import _C
from vinpaint.errors import InputError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_CPU = {"avx512_bf16", "amx_bf16"}
_FP16_CPU = {"avx512_fp16", "amx_fp16"}


def resolve_device(device: str) -> torch.device:
    """The device of a name; ``"auto"`` is the first CUDA device if there is one, else the CPU.

    Raises:
        InputError: an unknown name, or CUDA where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device: expected auto, cpu or cuda, got {device!r}") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device: {device!r} asked for, but torch {torch.__version__} sees no CUDA device"
        )
    return target


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of a name; ``"auto"`` is the fastest that the processor computes in hardware.

    Raises:
        InputError: an unknown name, or a precision the processor would only emulate.
    """
    if precision != "auto" and precision not in _DTYPES:
        raise InputError(f"precision: expected auto, fp32, bf16 or fp16, got {precision!r}")
    supported = supported_precisions(device)
    if precision == "auto":
        return _DTYPES[supported[0]]
    if precision not in supported:
        raise InputError(
            f"precision: {precision} is not computed in hardware on this {device.type}; "
            f"expected one of {', '.join(supported)}"
        )
    return _DTYPES[precision]


def supported_precisions(device: torch.device) -> list[str]:
    """Names of the precisions that ``device`` computes in hardware, the fastest first."""
    if device.type == "cuda":
        bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
        return ["bf16", "fp16", "fp32"] if bf16 else ["fp16", "fp32"]
    features = set(_C.cpu_features())
    names = []
    if features & _BF16_CPU:
        names.append("bf16")
    if features & _FP16_CPU:
        names.append("fp16")
    return [*names, "fp32"]


def return_free_memory() -> None:
    """Give memory that is free inside the process back to the system, where the C library can.

    Frames that pass from thread to thread between tensors of many sizes leave glibc's heap with
    holes; measured without this, it grew by 0.7 MB a frame of 320 x 240, without end.
    """
    if _TRIM is not None:
        _TRIM(0)


_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
