# SPDX-License-Identifier: Apache-2.0
"""A computation on a GPU as a CUDA graph: recorded at its first run, then started again as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vinpaint.engine.inputs import check_inputs

_CAPTURING = threading.Lock()
"""One thread at a time captures."""

Execute = Callable[[], Sequence[Tensor]]
"""Enqueues work on the current stream and returns what it writes."""


class CapturedRun:
    """Runs the same work again and again on other values, on a stream of its own. For one thread.

    Args:
        device: a GPU.
        names: of the inputs, for messages.
        make: allocates all that the work needs and returns its inputs, into which other values are copied, and the work.
    """

    def __init__(
        self,
        device: torch.device,
        names: Sequence[str],
        make: Callable[[], tuple[Sequence[Tensor], Execute]],
    ) -> None:
        self._device, self._names = device, names
        self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        # Allocated on this stream, so that the memory is not given to others while it still works.
        with torch.cuda.device(device), torch.cuda.stream(self._stream):
            inputs, self._execute = make()
        self._inputs = list(inputs)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Sequence[Tensor] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """New tensors with what the work makes of ``inputs``, ordered with the work of the device's current stream.

        Raises:
            InputError: an input of another shape, type or device.
        """
        expected = [(i.shape, i.dtype, i.device) for i in self._inputs]
        check_inputs(inputs, self._names, expected)
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with (
                torch.inference_mode(),
                torch.cuda.device(self._device),
                torch.cuda.stream(self._stream),
            ):
                torch._foreach_copy_(self._inputs, list(inputs))
                if self._graph is None:
                    with _CAPTURING:
                        self._graph = self._capture()
                self._graph.replay()
                results = tuple(output.clone() for output in self._outputs)
        finally:
            current.wait_stream(self._stream)
            for given in inputs:
                given.record_stream(self._stream)
        for result in results:
            result.record_stream(current)
        return results

    def _capture(self) -> torch.cuda.CUDAGraph:
        self._execute()  # the first run may allocate and choose, which cannot be captured
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # What other threads do meanwhile does not end the capture.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._outputs = self._execute()
        return graph
