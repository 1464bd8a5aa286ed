# SPDX-License-Identifier: Apache-2.0
"""What this installation is: versions, what was built, devices."""

from __future__ import annotations

import platform
from importlib.metadata import version as distribution_version
from typing import Any


def version() -> str:
    """The version of vinpaint."""
    return distribution_version("vinpaint")


def build_info() -> dict[str, Any]:
    """Versions, what the compiled half contains, and the devices torch sees."""
    import torch

    from vinpaint._extension import _C
    from vinpaint.devices import supported_precisions

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return {
        "version": version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "built_with_torch": _C.torch_version(),
        "built_with_cuda": _C.built_with_cuda(),
        "cuda_toolkit": _C.cuda_toolkit_version(),
        "cuda_architectures": _C.cuda_architectures(),
        "compiler": _C.compiler(),
        "cpu_features": _C.cpu_features(),
        "devices": devices,
        "device_names": [platform.machine(), *(torch.cuda.get_device_name(d) for d in devices[1:])],
        "precisions": {d: supported_precisions(torch.device(d)) for d in devices},
    }
