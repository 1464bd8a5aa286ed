# SPDX-License-Identifier: Apache-2.0
"""Model repositories of the Triton Inference Server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from vinpaint.engine.export import INPUTS, OUTPUTS, check_exporter, onnx_bytes
from vinpaint.engine.store import Spec, Store
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter

VERSION = "1"
"""The folder of the one version that a new repository has."""


class _Port(NamedTuple):
    """An input or output: its shape has -1 where any size goes."""

    name: str
    dtype: str
    shape: Sequence[int]


def export_triton(
    folder: str | Path,
    model: VideoInpainter | None = None,
    *,
    engine: str | Path | None = None,
    name: str = "vinpaint",
    cache: str | Path | None = None,
    **options: Any,
) -> Path:
    """Add the networks to a model repository, whole or not at all.

    Args:
        folder: the repository; made if it is not there.
        model: the networks, for an ONNX file.
        engine: in its place, a file of clips that ``vinpaint compile --backend tensorrt`` built.
        name: of the model in the repository.
        cache: folder of the engine cache; ``None``: the user's.
        options: with ``model``, of :func:`vinpaint.engine.export_program`.

    Returns:
        The model's folder: ``config.pbtxt`` and version 1.

    Raises:
        InputError: neither or both of model and engine, an engine that Triton cannot serve, a model of that name is there
            already, or as :func:`vinpaint.engine.export_program`.
    """
    if (model is None) == (engine is None):
        raise InputError("--triton: expected either networks or an engine")
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"--name: expected letters, digits, dots, dashes and underscores, got {name!r}"
        )
    if engine is not None and options:
        raise InputError(f"--engine: expected no {', '.join(options)} beside it: it is built")
    target = Path(folder) / name
    if target.exists():
        raise InputError(f"--triton: {target} exists; remove it, or add a version by hand")
    if model is not None:
        content = onnx_bytes(model, **options)
        file, kind, ports = "model.onnx", 'backend: "onnxruntime"', _ports_of_onnx(content)
    else:
        spec, content = Store(cache).read(Path(engine))  # type: ignore[arg-type]
        file, kind, ports = "model.plan", 'platform: "tensorrt_plan"', _ports_of_engine(spec)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=target.parent) as partial:
        made = Path(partial, name)
        (made / VERSION).mkdir(parents=True)
        (made / VERSION / file).write_bytes(content)
        (made / "config.pbtxt").write_text(_config(name, kind, *ports))
        os.rename(made, target)  # noqa: PTH104 - fails where it has appeared meanwhile
    return target


def _ports_of_onnx(content: bytes) -> tuple[list[_Port], list[_Port]]:
    check_exporter()
    import onnx

    types = {
        onnx.TensorProto.UINT8: "TYPE_UINT8",
        onnx.TensorProto.FLOAT: "TYPE_FP32",
        onnx.TensorProto.FLOAT16: "TYPE_FP16",
        onnx.TensorProto.BFLOAT16: "TYPE_BF16",
    }

    def port(value: Any) -> _Port:
        tensor = value.type.tensor_type
        shape = [-1 if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
        return _Port(value.name, types[tensor.elem_type], shape)

    graph = onnx.load_from_string(content).graph
    return [port(value) for value in graph.input], [port(value) for value in graph.output]


def _ports_of_engine(spec: Spec) -> tuple[list[_Port], list[_Port]]:
    if spec.backend != "tensorrt" or spec.lookahead is not None:
        of = spec.backend if spec.lookahead is None else "streams"
        raise InputError(
            f"--triton: expected a TensorRT engine of clips, got one of {of}; without --engine it is an ONNX file"
        )
    size = spec.height, spec.width
    shapes = [(spec.frames, *size, 3), (spec.frames, *size), (spec.frames,)]
    results = [(spec.frames - 2 * spec.context, *size, 3), (1,)]
    inputs, outputs = (
        [_Port(name, "TYPE_UINT8", shape) for name, shape in zip(names, of, strict=True)]
        for names, of in ((INPUTS, shapes), (OUTPUTS, results))
    )
    return inputs, outputs


def _config(name: str, kind: str, inputs: Iterable[_Port], outputs: Iterable[_Port]) -> str:
    """The model's configuration, as a text of protocol buffers. Clips are whole requests, so there is no batching."""
    ports = [
        f'{side} {{ name: "{port.name}" data_type: {port.dtype} dims: [ {", ".join(map(str, port.shape))} ] }}'
        for side, of in (("input", inputs), ("output", outputs))
        for port in of
    ]
    return "\n".join([f'name: "{name}"', kind, "max_batch_size: 0", *ports]) + "\n"
