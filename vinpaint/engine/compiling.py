# SPDX-License-Identifier: Apache-2.0
"""From networks to an engine of one of the runtimes, by way of the cache."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from vinpaint.engine import openvino, tensorrt
from vinpaint.engine.export import GraphPrecision, check_exporter, check_request
from vinpaint.engine.store import Spec, Store, Timings
from vinpaint.errors import InputError, InputWarning
from vinpaint.nn import VideoInpainter, fold_batch_norm

Backend = Literal["tensorrt", "tensorrt_rtx", "openvino"]

BACKENDS: tuple[Backend, ...] = ("tensorrt", "tensorrt_rtx", "openvino")

GRAPH = 2
"""Version of the graph: raised whenever what it computes changes, so that no old engine is taken for it."""


class Engine(Protocol):
    """What runs a graph, of clips or of a stream's frames of one size, from several threads.

    Attributes:
        spec: what it was built for.
        device: where its inputs are expected.
        dtype: of a stream's state.
    """

    spec: Spec
    device: torch.device
    dtype: torch.dtype

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`vinpaint.engine.graph.ClipGraph.forward` and :meth:`vinpaint.engine.graph.StreamGraph.forward`."""


def compile(
    model: VideoInpainter,
    *,
    backend: Backend,
    height: int,
    width: int,
    frames: int | None = None,
    context: int = 0,
    lookahead: int | None = None,
    precision: GraphPrecision = "fp32",
    target: str | None = None,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    rebuild: bool = False,
    progress: tensorrt.Progress | None = None,
) -> Path:
    """Build an engine, or find it in the cache.

    Args:
        model: the networks.
        backend: the runtime: ``"tensorrt"``, ``"tensorrt_rtx"`` or ``"openvino"``.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        frames: frames of a clip, those of the context too; ``None`` for a stream.
        context: frames before and after those that are wanted.
        lookahead: frames that a stream's frame waits for; ``None`` for clips.
        precision: what the networks compute in.
        target: compute capability, such as 8.9, or OpenVINO's device; ``None``: the card that is here, or the CPU.
        output: file to write; ``None``: in the cache.
        cache: folder of the cache; ``None``: the user's.
        rebuild: also where there is one.
        progress: told of the graph and then of the builder's phases (TensorRT's alone), if it is built.

    Returns:
        The engine's file, for :func:`load`. It runs on this installation alone.

    Raises:
        InputError: an unknown backend, a runtime that is not installed, a target that it cannot build for, a size that
            is none, or ``output`` is there, is not this engine, and ``rebuild`` was not asked for. What is wrong in the
            cache is built again, with a warning.
    """
    runtime = _runtime(backend)
    check_request(frames, context, lookahead, height, width)
    spec = Spec(
        backend=backend,
        library=runtime.library(backend),
        target=runtime.target(backend, target),
        weights=weights_digest(model),
        graph=GRAPH,
        frames=1 if frames is None else frames,
        context=context,
        height=height,
        width=width,
        precision=precision,
        lookahead=lookahead,
    )
    store = Store(cache)
    path = store.path(spec) if output is None else Path(output)
    with store.building(spec):
        if path.exists() and not rebuild:
            try:
                store.read(path, spec)
            except InputError as error:
                if output is not None:
                    raise InputError(f"{error} (--rebuild replaces it)") from error
                warnings.warn(f"{error}; it is built again", InputWarning, stacklevel=2)
            else:
                return path
        if progress is not None:
            progress("graph", 0, 1)
        measured = Timings(store.timings(spec))
        payload = runtime.build(model, spec, progress, measured)
        if measured.content:
            store.keep_timings(spec, measured.content)
        return store.write(spec, payload, path)


def load(path: str | Path, *, cache: str | Path | None = None) -> Engine:
    """Open an engine that :func:`compile` built here.

    Raises:
        InputError: the file is foreign, changed or cut off, or of another version of its runtime.
    """
    spec, payload = Store(cache).read(Path(path))
    library = _runtime(spec.backend).library(spec.backend)
    if spec.library != library:
        raise InputError(
            f"engine: {path} was built by {spec.backend} {spec.library}, and {library} is here; compile it again"
        )
    if spec.backend == "openvino":
        return openvino.OpenVINOEngine(spec, payload)
    return tensorrt.TensorRTEngine(spec, payload)


def _runtime(backend: str) -> Any:
    if backend not in BACKENDS:
        raise InputError(f"--backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    return openvino if backend == "openvino" else tensorrt


def check_device(backend: str, device: torch.device) -> None:
    """Raise InputError unless the backend's engines run on the device."""
    runtime = _runtime(backend)
    wanted = "cpu" if runtime is openvino else "cuda"
    if device.type != wanted:
        raise InputError(f"--backend {backend}: expected the device {wanted}, got {device}")
    runtime.library(backend)
    check_exporter()


def weights_digest(model: VideoInpainter) -> str:
    """Of the networks' options and their weights, whether batch normalisation is folded already or not."""
    model = fold_batch_norm(copy.deepcopy(model)).float()
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()
