# SPDX-License-Identifier: Apache-2.0
"""Timing on a GPU: in turns, from cold caches, without the gaps between launches.

Without a GPU the benchmarks on it are skipped, but in a smoke run, which takes the CPU to show that
they run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from harness import SMOKE
from torch import Tensor

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")

needs_gpu = pytest.mark.skipif(not (HAS_GPU or SMOKE), reason="torch sees no CUDA GPU")

quiet = pytest.mark.filterwarnings("ignore")
"""For peers that torch compiles: its compiler warns of itself."""

SAMPLES = 1 if SMOKE else 20
WARM_UP = 0 if SMOKE else 3
CACHE_BYTES = 256 << 20
"""Overwritten before each sample: several times any card's L2, so that every sample starts cold."""

LEAD_CYCLES = 1_000_000
"""The GPU idles for so long (half a millisecond) while the host queues a sample's kernels."""

Work = Callable[[], object]


def sample_ms(work: Work, flush: Tensor | None) -> float:
    """Milliseconds of one call: on a GPU by events around it, on the CPU by the clock."""
    if not HAS_GPU:
        start = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start)
    if flush is not None:
        flush.zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(LEAD_CYCLES)
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def median_ms(works: dict[str, Work], samples: int = SAMPLES) -> dict[str, float]:
    """The median of each, sampled in turns so that a busy or a warm card slows all alike."""
    flush = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=DEVICE) if HAS_GPU else None
    for _ in range(WARM_UP):
        for work in works.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(samples):
        for name, work in works.items():
            times[name].append(sample_ms(work, flush))
    return {name: median(ms) for name, ms in times.items()}


def peak_mib(work: Work) -> float | None:
    """Memory that one call needs beyond what was there before it; None without a GPU."""
    if not HAS_GPU:
        return None
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def graph_of(work: Work) -> Work:
    """The call as a CUDA graph's replay; itself without a GPU."""
    if not HAS_GPU:
        return work
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def compiled(function: Callable[..., Any], mode: str | None = None) -> Callable[..., Any]:
    """``torch.compile``; a smoke run only traces, since generating code takes minutes."""
    torch._dynamo.reset()
    if SMOKE:
        return torch.compile(function, backend="aot_eager")
    return torch.compile(function, mode=mode)


def assert_near(name: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Results are compared before they are timed; the error is relative to the expected norm."""
    error = (got.float() - expected.float()).norm() / expected.float().norm()
    assert error < tolerance, f"{name} is off by {error:.2g} of the result's norm"


def keep(benchmark: Any, row: dict[str, Any]) -> None:
    """Put a row into the report at once: a run that is cut off loses none that was measured."""
    benchmark.extra_info.update(row)
    results = os.environ.get("VINPAINT_BENCHMARK_RESULTS")
    if results:
        with Path(results).open("a") as file:
            file.write(json.dumps(row) + "\n")


def run(benchmark: Any, group: str, works: dict[str, Work], **facts: Any) -> dict[str, float]:
    """Time ``works`` on the device and keep the row. The first is ours, the others are its peers.

    The table of pytest-benchmark shows ours as the host sees it: call, launches, and the wait.
    """
    milliseconds = median_ms(works)
    ours, *peers = works

    def one_call() -> None:
        works[ours]()
        if HAS_GPU:
            torch.cuda.synchronize()

    benchmark.group = group
    benchmark.pedantic(one_call, rounds=1 if SMOKE else 5)
    ratios = {f"times_{p}": milliseconds[p] / milliseconds[ours] for p in peers}
    times = {f"{name}_ms": ms for name, ms in milliseconds.items()}
    host = {f"{ours}_host_ms": 1e3 * benchmark.stats.stats.median}
    keep(benchmark, {"group": group, **facts, **times, **ratios, **host})
    return milliseconds
