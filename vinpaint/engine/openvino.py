# SPDX-License-Identifier: Apache-2.0
"""OpenVINO: Intel's CPUs and GPUs."""

from __future__ import annotations

import threading
from importlib import import_module
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from vinpaint.engine.export import onnx_bytes
from vinpaint.engine.inputs import check_inputs
from vinpaint.engine.store import Spec, Timings
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter

TYPES = {"u8": torch.uint8, "f32": torch.float32}

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


def _openvino() -> Any:
    try:
        return import_module("openvino")
    except ImportError as error:
        raise InputError(f"openvino: {error}; pip install 'vinpaint[openvino]'") from error


def library(_: str) -> str:
    """The runtime's version."""
    return str(_openvino().__version__)


def target(_: str, name: str | None) -> str:
    """The device, by OpenVINO's name, with what it is.

    Raises:
        InputError: there is no such device.
    """
    core = _openvino().Core()
    device = name or "CPU"
    if device.partition(".")[0] not in {d.partition(".")[0] for d in core.available_devices}:
        raise InputError(
            f"openvino: expected a device of {', '.join(core.available_devices)}, got {device!r}"
        )
    return f"{device}: {core.get_property(device, 'FULL_DEVICE_NAME')}"


def build(
    model: VideoInpainter,
    spec: Spec,
    progress: Any = None,  # noqa: ARG001
    timings: Timings | None = None,  # noqa: ARG001
) -> bytes:
    """The compiled graph; OpenVINO tells nothing of its progress, and measures nothing."""
    openvino = _openvino()
    # The graph is float32 whatever the precision: OpenVINO itself chooses where to compute in less.
    graph = onnx_bytes(model, **{**spec.options, "precision": "fp32"})
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(BytesIO(graph)), _device(spec), _options(spec))
    return bytes(compiled.export_model().getbuffer())


class OpenVINOEngine:
    """A compiled graph; may be called from several threads."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, spec: Spec, payload: bytes) -> None:
        self.spec = spec
        core = _openvino().Core()
        self._compiled = core.import_model(BytesIO(payload), _device(spec), _options(spec))
        self._local = threading.local()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See :class:`vinpaint.engine.Engine`."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        ports = self._compiled.inputs
        expected = [
            (port.shape, TYPES[port.element_type.to_string()], self.device) for port in ports
        ]
        check_inputs(inputs, [port.any_name for port in ports], expected)
        arrays = [part.contiguous().numpy() for part in inputs]
        outputs = request.infer(arrays, share_inputs=True, share_outputs=False)
        return tuple(torch.from_numpy(outputs[i]) for i in range(len(self._compiled.outputs)))


def _options(spec: Spec) -> dict[str, Any]:
    """Asked for when a graph is compiled and when it is read again, which remembers none of it."""
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[spec.precision]}
    if _device(spec) == "CPU":
        options["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    return options


def _device(spec: Spec) -> str:
    return spec.target.partition(":")[0]
