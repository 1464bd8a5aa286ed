# SPDX-License-Identifier: Apache-2.0
"""ONNX files and programs of ``torch.export`` from networks."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from vinpaint.engine.graph import ClipGraph
from vinpaint.errors import InputError
from vinpaint.info import version
from vinpaint.nn import VideoInpainter

INPUTS, OUTPUTS = ("frames", "mask", "live"), ("completed", "invalid")

OPSET = 20
"""Of the ONNX files: what TensorRT 10 and OpenVINO 2024 read."""

GraphPrecision = Literal["fp32", "fp16", "bf16"]

DTYPES: dict[GraphPrecision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def export_program(
    model: VideoInpainter,
    *,
    frames: int,
    height: int,
    width: int,
    context: int = 0,
    precision: GraphPrecision = "fp32",
    any_frames: bool = False,
) -> torch.export.ExportedProgram:
    """The whole job (:class:`~vinpaint.engine.graph.ClipGraph`) as a program of ``torch.export``.

    Args:
        model: the networks.
        frames: frames of a clip, those of the context too.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        context: frames before and after those that are wanted.
        precision: what the networks compute in.
        any_frames: the program takes clips of any number of frames from 2 on, and ``frames`` is an example.

    Raises:
        InputError: a size that is no size, no frame left beside the context, an unknown precision, or networks that
            cannot be exported.
    """
    if min(height, width) < 1:
        raise InputError(f"export: expected a height and a width above 0, got {height} x {width}")
    if frames - 2 * context < 1 or context < 0:
        raise InputError(
            f"export: expected more frames than {2 * context}, twice the context, got {frames}"
        )
    if precision not in DTYPES:
        raise InputError(f"precision: expected one of {', '.join(DTYPES)}, got {precision!r}")
    graph = ClipGraph(model, context=context, dtype=DTYPES[precision]).eval()
    example = _example(frames, height, width)
    count = torch.export.Dim("frames", min=2 * context + 2)
    dynamic: Any = [{0: count}, {0: count}, {0: count}] if any_frames else None
    with torch.no_grad():
        return torch.export.export(graph, example, dynamic_shapes=dynamic)


def export_onnx(model: VideoInpainter, path: str | Path, **options: Any) -> None:
    """Write the whole job as an ONNX file, which is whole or not there.

    Inputs ``frames`` (F, H, W, 3), ``mask`` (F, H, W) and ``live`` (F,), outputs ``completed`` and ``invalid``: all uint8, see
    :meth:`ClipGraph.forward <vinpaint.engine.graph.ClipGraph.forward>`.

    Args:
        model: the networks.
        path: the file.
        options: of :func:`export_program`.

    Raises:
        InputError: as there, or the packages for it are missing.
    """
    path = Path(path)
    with TemporaryDirectory(prefix=".", dir=path.parent) as partial:
        file = Path(partial, path.name)
        file.write_bytes(onnx_bytes(model, **options))
        file.replace(path)


def onnx_bytes(model: VideoInpainter, **options: Any) -> bytes:
    """What :func:`export_onnx` writes."""
    check_exporter()
    program = export_program(model, **options)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about itself
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=INPUTS,
                output_names=OUTPUTS,
                verbose=False,
            )
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    assert exported is not None
    proto = exported.model_proto
    facts = {"version": version(), "networks": asdict(model.config), "options": options}
    entry = proto.metadata_props.add()
    entry.key, entry.value = "vinpaint", json.dumps(facts, sort_keys=True)
    return proto.SerializeToString()


def check_exporter() -> None:
    """Raise InputError unless the packages that write ONNX files are installed."""
    try:
        import onnx  # noqa: F401 - torch's exporter needs both
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"export: {error}; pip install 'vinpaint[onnx]'") from error


def _example(frames: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.zeros(frames, height, width, 3, dtype=torch.uint8),
        torch.zeros(frames, height, width, dtype=torch.uint8),
        torch.ones(frames, dtype=torch.uint8),
    )
