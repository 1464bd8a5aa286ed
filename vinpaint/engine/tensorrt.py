# SPDX-License-Identifier: Apache-2.0
"""TensorRT, and TensorRT for RTX: the same interface in two modules, one code path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from vinpaint.engine.export import INPUTS, OUTPUTS, onnx_bytes
from vinpaint.engine.store import Spec
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter

EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}

Progress = Callable[[str, int, int], None]
"""Told of a phase's name, its steps done and its steps in all."""


def _module(backend: str) -> Any:
    try:
        return import_module(backend)
    except ImportError as error:
        extra = f"pip install 'vinpaint[{EXTRAS[backend]}]'"
        raise InputError(f"{backend}: {error}; {extra}") from error


def library(backend: str) -> str:
    """The runtime's version."""
    return str(_module(backend).__version__)


def target(backend: str, capability: str | None) -> str:
    """Compute capability that an engine is for, such as 8.9; ``None``: of the card that is here.

    Raises:
        InputError: no card here and none named, or one that the runtime cannot build for from here.
    """
    trt = _module(backend)
    here = None
    if torch.cuda.is_available():
        here = "{}.{}".format(*torch.cuda.get_device_capability())
    if capability is None:
        if here is None:
            raise InputError(
                f"{backend}: expected --compute-capability, such as 8.9, as there is no card here"
            )
        return here
    if capability == here:
        return capability
    names = getattr(trt, "ComputeCapability", None)
    if names is None:
        raise InputError(
            f"{backend}: builds only for the card that is here ({here}), got {capability}; "
            "tensorrt_rtx builds for others"
        )
    known = _capabilities(trt)
    if capability not in known:
        raise InputError(
            f"{backend}: expected a compute capability of {', '.join(known)}, got {capability}"
        )
    return capability


def _capabilities(trt: Any) -> dict[str, Any]:
    """From 8.9 to SM89, as far as the runtime knows them."""
    members = getattr(trt.ComputeCapability, "__members__", {})
    numbers = {name: name[2:] for name in members if name.startswith("SM") and name[2:].isdigit()}
    return {f"{n[:-1]}.{n[-1]}": members[name] for name, n in numbers.items()}


def build(model: VideoInpainter, spec: Spec, progress: Progress | None = None) -> bytes:
    """The engine, strongly typed: the precision is in the graph.

    Raises:
        InputError: the runtime cannot build it.
    """
    trt = _module(spec.backend)
    graph = onnx_bytes(
        model,
        frames=spec.frames,
        height=spec.height,
        width=spec.width,
        context=spec.context,
        precision=spec.precision,
    )
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise InputError(f"{spec.backend}: the graph cannot be read: {reasons}")
    config = builder.create_builder_config()
    if spec.target in (_capabilities(trt) if hasattr(trt, "ComputeCapability") else {}):
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capabilities(trt)[spec.target], 0)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError(
            f"{spec.backend}: the engine was not built: {logger.last or 'no reason given'}"
        )
    return bytes(memoryview(engine))


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):
        """Silent; keeps the last error for the message."""

        last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Logger()


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:  # noqa: ARG002
            self._steps[name] = steps
            progress(name, 0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            progress(name, step + 1, self._steps[name])
            return True

        def phase_finish(self, name: str) -> None:
            steps = self._steps.pop(name)
            progress(name, steps, steps)

    return Monitor()


class TensorRTEngine:
    """An engine on the card that is here; may be called from several threads, each with a context of its own."""

    def __init__(self, spec: Spec, payload: bytes) -> None:
        trt = _module(spec.backend)
        if not torch.cuda.is_available():
            raise InputError(f"{spec.backend}: an engine runs on a GPU, and there is none here")
        self.spec = spec
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._logger = _logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(payload)
        if self._engine is None:
            raise InputError(f"{spec.backend}: the engine cannot be loaded: {self._logger.last}")
        self._local = threading.local()

    def __call__(self, frames: Tensor, mask: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`vinpaint.engine.graph.ClipGraph.forward`; on the engine's device."""
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker(self._engine, self.spec, self.device)
        return worker.run(frames, mask, live)


_CAPTURING = threading.Lock()
"""One thread at a time captures."""


class _Worker:
    """One thread's context, its stream, and the graph that was captured of a run."""

    def __init__(self, engine: Any, spec: Spec, device: torch.device) -> None:
        self._context = engine.create_execution_context()
        self._stream = torch.cuda.Stream(device)
        shape = (spec.frames, spec.height, spec.width)
        wanted = spec.frames - 2 * spec.context

        def buffer(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.uint8, device=device)

        self._inputs = buffer(*shape, 3), buffer(*shape), buffer(spec.frames)
        self._outputs = buffer(wanted, spec.height, spec.width, 3), buffer(1)
        tensors = (*self._inputs, *self._outputs)
        for name, tensor in zip((*INPUTS, *OUTPUTS), tensors, strict=True):
            if not self._context.set_tensor_address(name, tensor.data_ptr()):
                raise InputError(f"{spec.backend}: the engine has no input or output {name}")
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for own, given in zip(self._inputs, inputs, strict=True):
                own.copy_(given, non_blocking=True)
            if self._graph is None:
                with _CAPTURING:
                    self._graph = self._capture()
            self._graph.replay()
            completed, invalid = (output.clone() for output in self._outputs)
        current.wait_stream(self._stream)
        for output in (completed, invalid):
            output.record_stream(current)
        return completed, invalid

    def _capture(self) -> torch.cuda.CUDAGraph:
        self._execute()  # the first run may allocate, which cannot be captured
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile does not end the capture.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._execute()
        return graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("the engine's run failed")
