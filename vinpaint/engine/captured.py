# SPDX-License-Identifier: Apache-2.0
"""A computation on a GPU as a CUDA graph: recorded at its first run, then started again as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_CAPTURING = threading.Lock()
"""One thread at a time captures."""


class CapturedRun:
    """Runs ``execute`` again and again on other values, on a stream of its own. For one thread.

    Args:
        inputs: what ``execute`` reads; other values are copied into these.
        execute: enqueues the work on the current stream and returns what it writes, always the same tensors.
    """

    def __init__(self, inputs: Sequence[Tensor], execute: Callable[[], Sequence[Tensor]]) -> None:
        self._inputs, self._execute = list(inputs), execute
        self._stream = torch.cuda.Stream(inputs[0].device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Sequence[Tensor] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """New tensors with what ``execute`` makes of ``inputs``, ordered with the work of the current stream."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            torch._foreach_copy_(self._inputs, list(inputs))
            if self._graph is None:
                with _CAPTURING:
                    self._graph = self._capture()
            self._graph.replay()
            results = tuple(output.clone() for output in self._outputs)
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
