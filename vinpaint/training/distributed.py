# SPDX-License-Identifier: Apache-2.0
"""One run in several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vinpaint.devices import resolve_device
from vinpaint.nn.layers import ConvBNReLU

PATIENCE = timedelta(hours=2)
"""How long a process waits for another, which may be decoding videos."""


def is_first() -> bool:
    """Whether ``torchrun`` started this process as the first, or there is no other."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this one's number; 0 is the only one that writes.
        count: how many there are.
        device: what this one computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all have come this far."""
        if self.count > 1:
            dist.barrier()

    def from_first(self, value: Any) -> Any:
        """What the first process has, for all: its machine may be another."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over the processes."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat.div_(self.count)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def share_gradients(self, module: nn.Module) -> nn.Module:
        """``module``, its gradients averaged over the processes in the backward; its buffers left alone."""
        if self.count == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # The option that torch 2.13 wants instead is not there in torch 2.10.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.* is deprecated")
            return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def keep_gradients(self, module: nn.Module) -> AbstractContextManager[None]:
        """Inside, the backward of a module of :meth:`share_gradients` only adds up its own gradients."""
        if isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return nullcontext()


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Meet the other processes if ``torchrun`` started this one: NCCL on CUDA, gloo on the CPU."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    target = resolve_device(device)
    if count == 1:
        yield Processes(0, 1, target)
        return
    if target.type == "cuda":
        if ":" not in device:
            target = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(target)
    backend = "nccl" if target.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), count, target)
    finally:
        dist.destroy_process_group()


class RunningStatistics:
    """Running mean and variance of the layers that learn, over the parts of a step.

    Every part (a micro-batch of a process) normalises itself and would move the running statistics; here
    each moves them from where they were before the step, and the step's are the mean over all parts. So
    many processes with one part each equal one process with as many parts.
    """

    def __init__(self, model: nn.Module, parts: int, processes: Processes) -> None:
        learning = [m for m in model.modules() if isinstance(m, ConvBNReLU) and m.training]
        several = parts * processes.count > 1
        self._buffers = (
            [b for m in learning for b in (m.running_mean, m.running_var)] if several else []
        )
        self._parts, self._processes = parts, processes
        self._before: list[Tensor] = []
        self._sums: list[Tensor] = []

    def begin_step(self) -> None:
        self._before = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]

    def end_part(self) -> None:
        for buffer, before, total in zip(self._buffers, self._before, self._sums, strict=True):
            total.add_(buffer)
            buffer.copy_(before)

    def end_step(self) -> None:
        for buffer, total in zip(self._buffers, self._sums, strict=True):
            buffer.copy_(total.div_(self._parts))
        self._processes.average(self._buffers)
