# SPDX-License-Identifier: Apache-2.0
"""The CUDA operators without a GPU: their sources, compiled for the emulator, on CPU tensors.

Found as ``torch.ops.vinpaint_emulated``, with the schemas of ``torch.ops.vinpaint``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def build_emulated(folder: Path) -> Path:
    """The library, built in ``folder``; nothing is done if it is up to date there."""
    configure = [
        "cmake",
        *("-S", str(ROOT)),
        *("-B", str(folder)),
        *("-G", "Ninja"),
        "-DVINPAINT_EMULATOR=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    for command in (configure, ["cmake", "--build", str(folder)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return folder / "libvinpaint_emulated.so"


@pytest.fixture(scope="session")
def emulated(request: pytest.FixtureRequest):
    """The operators' namespace."""
    if shutil.which("cmake") is None or shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("the emulator is compiled for the test: needs cmake and a C++ compiler")
    version = hashlib.sha256(f"{sys.executable} {torch.__version__}".encode()).hexdigest()[:12]
    folder = Path(request.config.cache.mkdir("emulator")) / version
    torch.ops.load_library(build_emulated(folder))
    return torch.ops.vinpaint_emulated
