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

from vinpaint.engine.graph import ClipGraph, StreamGraph
from vinpaint.errors import InputError
from vinpaint.info import version
from vinpaint.nn import VideoInpainter
from vinpaint.nn.streaming import LAYERS

INPUTS: tuple[str, ...] = ("frames", "mask", "live")

OUTPUTS: tuple[str, ...] = ("completed", "invalid")

STREAM_INPUTS = ("frame", "mask", "late_frame", "late_mask", "live")

STATE, NEXT = "state", "next_state"
"""Of a stream: what a step gave as ``next_state_0`` and so on is the next one's ``state_0`` and so on."""

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
    height: int,
    width: int,
    frames: int | None = None,
    context: int = 0,
    lookahead: int | None = None,
    precision: GraphPrecision = "fp32",
    any_frames: bool = False,
    any_size: bool = False,
) -> torch.export.ExportedProgram:
    """The whole job as a program of ``torch.export``: for clips (:class:`~vinpaint.engine.graph.ClipGraph`), or for one more
    frame of a stream (:class:`~vinpaint.engine.graph.StreamGraph`).

    Args:
        model: the networks.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        frames: frames of a clip, those of the context too; ``None`` for a stream.
        context: frames before and after those that are wanted.
        lookahead: frames that a stream's frame waits for; ``None`` for clips.
        precision: what the networks compute in.
        any_frames: the program takes clips of any number of frames from 2 beside the context on, and ``frames`` is an example.
        any_size: the program takes clips of any height and width that are multiples of the networks' grid, and ``height``
            and ``width`` are an example.

    Raises:
        InputError: a size that is no size or not on the grid where it has to be, neither or both of frames and look-ahead,
            no frame left beside the context, an unknown precision, or networks that cannot be exported.
    """
    check_request(frames, context, lookahead, height, width)
    if precision not in DTYPES:
        raise InputError(f"precision: expected one of {', '.join(DTYPES)}, got {precision!r}")
    dtype = DTYPES[precision]
    if lookahead is not None:
        if any_frames or any_size:
            raise InputError(
                "export: expected a stream's graph to be of one size, without --any-frames and --any-size"
            )
        return _stream_program(StreamGraph(model, lookahead=lookahead, dtype=dtype), height, width)
    assert frames is not None, "checked above"
    grid = model.grid
    if any_size and (height % grid or width % grid or grid in (height, width)):
        raise InputError(
            f"export: expected multiples of {grid} above {grid} for any size, got {height} x {width}"
        )
    graph = ClipGraph(model, context=context, dtype=dtype, any_size=any_size).eval()
    sizes: dict[int, Any] = {}
    if any_frames:
        if frames < 2 * context + 2:
            raise InputError(
                f"export: --any-frames: expected {2 * context + 2} frames or more, got {frames}"
            )
        sizes[0] = torch.export.Dim("frames", min=2 * context + 2)
    if any_size:
        for axis, name in ((1, "rows"), (2, "columns")):
            sizes[axis] = grid * torch.export.Dim(name, min=2)
    count = {axis: size for axis, size in sizes.items() if axis == 0}
    dynamic: Any = [sizes, sizes, count] if sizes else None
    with torch.no_grad():
        return torch.export.export(graph, _example(frames, height, width), dynamic_shapes=dynamic)


def _stream_program(graph: StreamGraph, height: int, width: int) -> torch.export.ExportedProgram:
    frame, mask, _ = _example(1, height, width)
    live = torch.ones(len(graph.step.delays), dtype=torch.uint8)
    example = (frame, mask, frame.clone(), mask.clone(), live, *graph.blank(height, width))
    with torch.no_grad():
        return torch.export.export(graph.eval(), example)


def check_request(
    frames: int | None, context: int, lookahead: int | None, height: int, width: int
) -> None:
    """Raise InputError unless a graph of this can be."""
    if min(height, width) < 1:
        raise InputError(f"export: expected a height and a width above 0, got {height} x {width}")
    if (frames is None) == (lookahead is None):
        raise InputError(
            "export: expected either a clip's number of frames or a stream's look-ahead, "
            f"got {frames} and {lookahead}"
        )
    if lookahead is not None and (lookahead < 0 or context):
        raise InputError(
            f"export: expected a look-ahead of 0 or more and no context, got {lookahead} and {context}"
        )
    if frames is not None and (frames - 2 * context < 1 or context < 0):
        raise InputError(
            f"export: expected more frames than {2 * context}, twice the context, got {frames}"
        )


def export_onnx(model: VideoInpainter, path: str | Path, **options: Any) -> None:
    """Write the whole job as an ONNX file, which is whole or not there.

    For clips: inputs ``frames`` (F, H, W, 3), ``mask`` (F, H, W) and ``live`` (F,), outputs ``completed`` and ``invalid``: all uint8, see
    :meth:`ClipGraph.forward <vinpaint.engine.graph.ClipGraph.forward>`. For a stream: inputs ``frame``, ``mask``, ``late_frame``,
    ``late_mask``, ``live`` and ``state_0`` to ``state_11``, outputs ``completed``, ``invalid`` and ``next_state_0`` to ``next_state_11``, see
    :meth:`StreamGraph.forward <vinpaint.engine.graph.StreamGraph.forward>`.

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


def interface(*, stream: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a graph's inputs and outputs."""
    if not stream:
        return INPUTS, OUTPUTS
    maps = range(LAYERS)
    return (
        (*STREAM_INPUTS, *(f"{STATE}_{i}" for i in maps)),
        (*OUTPUTS, *(f"{NEXT}_{i}" for i in maps)),
    )


def onnx_bytes(model: VideoInpainter, **options: Any) -> bytes:
    """What :func:`export_onnx` writes."""
    check_exporter()
    program = export_program(model, **options)
    inputs, outputs = interface(stream=options.get("lookahead") is not None)
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
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    assert exported is not None
    proto = exported.model_proto
    _name_sizes(proto)
    facts = {"version": version(), "networks": asdict(model.config), "options": options}
    entry = proto.metadata_props.add()
    entry.key, entry.value = "vinpaint", json.dumps(facts, sort_keys=True)
    return proto.SerializeToString()


def _name_sizes(proto: Any) -> None:
    """Sizes that are only known when it runs bear names, and not the exporter's letters."""
    graph = proto.graph
    names = ("frames", "height", "width")
    dims = [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim]
    named = {dim: name for dim, name in zip(dims, names, strict=False) if dim}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in named:
                dim.dim_param = named[dim.dim_param]


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
