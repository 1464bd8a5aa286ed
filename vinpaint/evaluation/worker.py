# SPDX-License-Identifier: Apache-2.0
"""Runs one method on clip after clip, timed, in a process of its own if its memory is to be measured."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vinpaint.evaluation.data import Frames, Hole
from vinpaint.evaluation.methods import Fill, Method
from vinpaint.evaluation.program import Program
from vinpaint.processes import ChildProcess, Tell


class Filled(NamedTuple):
    """What a method gave for a clip.

    Attributes:
        pixels: uint8 (P, 3), of the hole alone, in the order of ``frames[hole]``.
        seconds: the time it took, a frame.
        memory: the most MiB that the process, or a program, had resident meanwhile; NaN in a process that does
            more than this method.
        gpu_memory: the most MiB that torch held on the GPU meanwhile; NaN without one.
    """

    pixels: NDArray[np.uint8]
    seconds: float
    memory: float = math.nan
    gpu_memory: float = math.nan


class Worker:
    """One method, loaded when it is first needed.

    Args:
        method: what to run.
        isolate: run it in a process of its own, started from nothing.
    """

    def __init__(self, method: Method, *, isolate: bool) -> None:
        self.method = method
        self.isolate = isolate
        self._fill: Fill | None = None
        self._process = ChildProcess(_Fills, method, name="its process")

    def __call__(self, frames: Frames, hole: Hole) -> Filled:
        """Fill a clip. Whatever the method raises is raised here; RuntimeError if its process dies.

        A method that cannot be pickled cannot be sent to a process of its own; what pickle says of it is raised.
        """
        if not self.isolate:
            self._fill, filled = _run(self.method, self._fill, frames, hole)
            return filled
        answer = self._process.ask((frames, hole))
        if isinstance(answer, str):
            raise RuntimeError(answer)  # noqa: TRY004 - what the method raised there
        assert isinstance(answer, Filled)
        return answer

    def close(self) -> None:
        """End the process, if there is one."""
        self._process.close()


class _Fills:
    """Runs the method, there."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._fill: Fill | None = None

    def __call__(self, request: tuple[Frames, Hole], _tell: Tell) -> Filled | str:
        """What the method gave, or what it raised: its failure on one clip is not the end of the others."""
        try:
            _forget_peak_memory()
            self._fill, filled = _run(self._method, self._fill, *request)
            return filled._replace(memory=_peak_memory(self._fill), gpu_memory=_peak_gpu_memory())
        except Exception as error:  # noqa: BLE001 - raised in the other process
            return str(error) or type(error).__name__
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # the other methods' processes may need it


def _run(method: Method, fill: Fill | None, frames: Frames, hole: Hole) -> tuple[Fill, Filled]:
    if fill is None:
        fill = method.load()
        if method.warm_up:
            fill(frames.copy(), hole.copy())
    given = frames.copy(), hole.copy()  # a method may write into what it is given
    start = time.perf_counter()
    result = fill(*given)
    seconds = (time.perf_counter() - start) / len(frames)
    if result.shape != frames.shape or result.dtype != np.uint8:
        raise TypeError(
            f"expected uint8 frames of shape {frames.shape}, got {result.dtype} {result.shape}"
        )
    return fill, Filled(result[hole], seconds)


def _forget_peak_memory() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with suppress(
        OSError
    ):  # no Linux, or a container that forbids it: then the peak is the process's so far
        _CLEAR.write_text("5")


def _peak_memory(fill: Fill) -> float:
    if isinstance(fill, Program):
        return fill.peak_memory
    if not _STATUS.exists():
        return math.nan
    # ru_maxrss of this process would not do: it begins at that of the process that started it.
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _peak_gpu_memory() -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else math.nan


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
