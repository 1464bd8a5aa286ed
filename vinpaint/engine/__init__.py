# SPDX-License-Identifier: Apache-2.0
"""The networks as one graph for other runtimes: ONNX files, TensorRT and OpenVINO engines."""

from vinpaint.engine.compiling import BACKENDS, Engine, compile, load
from vinpaint.engine.export import export_onnx, export_program
from vinpaint.engine.serving import export_triton

__all__ = [
    "BACKENDS",
    "Engine",
    "compile",
    "export_onnx",
    "export_program",
    "export_triton",
    "load",
]
