# SPDX-License-Identifier: Apache-2.0
"""TensorRT, and TensorRT for RTX: the same interface in two modules, one code path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from vinpaint.engine.captured import CapturedRun, Execute
from vinpaint.engine.export import DTYPES, GraphPrecision, interface, onnx_bytes
from vinpaint.engine.store import Spec, Timings
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter

if TYPE_CHECKING:
    import tensorrt as trt  # either runtime's objects: that of RTX has the same classes

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
    module = _module(backend)
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
    names = getattr(module, "ComputeCapability", None)
    if names is None:
        raise InputError(
            f"{backend}: builds only for the card that is here ({here}), got {capability}; "
            "tensorrt_rtx builds for others"
        )
    known = _capabilities(module)
    if capability not in known:
        raise InputError(
            f"{backend}: expected a compute capability of {', '.join(known)}, got {capability}"
        )
    return capability


def _capabilities(module: Any) -> dict[str, Any]:
    """From 8.9 to SM89, as far as the runtime knows them."""
    members = getattr(module.ComputeCapability, "__members__", {})
    numbers = {name: name[2:] for name in members if name.startswith("SM") and name[2:].isdigit()}
    return {f"{n[:-1]}.{n[-1]}": members[name] for name, n in numbers.items()}


def build(
    model: VideoInpainter,
    spec: Spec,
    progress: Progress | None = None,
    timings: Timings | None = None,
) -> bytes:
    """The engine, strongly typed: the precision is in the graph.

    What the builder measures is read from ``timings`` and left there.

    Raises:
        InputError: the runtime cannot build it.
    """
    module = _module(spec.backend)
    graph = onnx_bytes(model, **spec.options)
    logger = _logger(module)
    builder: trt.Builder = module.Builder(logger)
    network: trt.INetworkDefinition = builder.create_network(
        1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    parser: trt.OnnxParser = module.OnnxParser(network, logger)
    parsed: bool = parser.parse(graph)
    if not parsed:
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise InputError(f"{spec.backend}: the graph cannot be read: {reasons}")
    config: trt.IBuilderConfig = builder.create_builder_config()
    if spec.target in (_capabilities(module) if hasattr(module, "ComputeCapability") else {}):
        for_another: Any = config  # RTX alone has these
        for_another.num_compute_capabilities = 1
        for_another.set_compute_capability(_capabilities(module)[spec.target], 0)
    if progress is not None:
        config.progress_monitor = _monitor(module, progress)
    timed: trt.ITimingCache | None = None
    if timings is not None and spec.backend == "tensorrt":  # RTX measures where it runs
        timed = config.create_timing_cache(timings.content)
        config.set_timing_cache(timed, ignore_mismatch=False)
    engine: trt.IHostMemory | None = builder.build_serialized_network(network, config)
    if engine is None:
        raise InputError(
            f"{spec.backend}: the engine was not built: {logger.last or 'no reason given'}"
        )
    if timings is not None and timed is not None:
        timings.content = bytes(memoryview(timed.serialize()))
    return bytes(memoryview(engine))


def _logger(module: Any) -> Any:
    class Logger(module.ILogger):
        """Silent; keeps the last error for the message."""

        last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Logger()


def _monitor(module: Any, progress: Progress) -> Any:
    class Monitor(module.IProgressMonitor):
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
        module = _module(spec.backend)
        if not torch.cuda.is_available():
            raise InputError(f"{spec.backend}: an engine runs on a GPU, and there is none here")
        self.spec = spec
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.dtype = DTYPES[cast(GraphPrecision, spec.precision)]
        self._logger = _logger(module)
        self._runtime: trt.Runtime = module.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(payload)
        if engine is None:
            raise InputError(f"{spec.backend}: the engine cannot be loaded: {self._logger.last}")
        self._engine: trt.ICudaEngine = engine
        self._local = threading.local()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See :class:`vinpaint.engine.Engine`; on the engine's device."""
        run: CapturedRun | None = getattr(self._local, "run", None)
        if run is None:
            run = self._local.run = self._new_run()
        return run(*inputs)

    def _new_run(self) -> CapturedRun:
        inputs, outputs = interface(stream=self.spec.lookahead is not None)

        def make() -> tuple[list[Tensor], Execute]:
            context: trt.IExecutionContext = self._engine.create_execution_context()
            given, found = (
                [self._buffer(context, name) for name in of] for of in (inputs, outputs)
            )

            def execute() -> list[Tensor]:
                if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
                    raise RuntimeError("the engine's run failed")
                return found

            return given, execute

        return CapturedRun(self.device, inputs, make)

    def _buffer(self, context: trt.IExecutionContext, name: str) -> Tensor:
        module = _module(self.spec.backend)
        types = {
            module.DataType.UINT8: torch.uint8,
            module.DataType.FLOAT: torch.float32,
            module.DataType.HALF: torch.float16,
            module.DataType.BF16: torch.bfloat16,
        }
        dims: Any = self._engine.get_tensor_shape(name)
        dtype = types[self._engine.get_tensor_dtype(name)]
        buffer = torch.zeros(tuple(dims), dtype=dtype, device=self.device)
        if not context.set_tensor_address(name, buffer.data_ptr()):
            raise InputError(f"{self.spec.backend}: the engine has no input or output {name}")
        return buffer
