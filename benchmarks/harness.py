# SPDX-License-Identifier: Apache-2.0
"""Timing side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

import pytest
import torch

SMOKE = os.environ.get("VINPAINT_BENCHMARK_SMOKE") == "1"
"""Tiny sizes and one round: shows that the benchmarks run, says nothing about speed."""

ROUNDS = 1 if SMOKE else 4


@pytest.fixture
def versus(benchmark) -> Callable[..., None]:
    """Time ours and its peers in turns, so that a busy machine slows them alike; ratios go to extra_info."""

    def run(
        ours: Callable[[], object],
        peers: dict[str, Callable[[], object]],
        *,
        inference: bool = True,
    ) -> None:
        seconds: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}

        def one_round() -> None:
            for name, peer in peers.items():
                start = time.perf_counter()
                peer()
                seconds[name].append(time.perf_counter() - start)

        with torch.inference_mode(inference):
            for peer in peers.values():
                peer()
            benchmark.pedantic(
                ours, setup=one_round, rounds=ROUNDS, warmup_rounds=0 if SMOKE else 1
            )
        ours_stats = benchmark.stats.stats
        for name, peer_seconds in seconds.items():
            if name != "ours":
                measured = peer_seconds[-ROUNDS:]
                benchmark.extra_info[f"{name}_s"] = round(median(measured), 4)
                benchmark.extra_info[f"{name}_min_s"] = round(min(measured), 4)
                benchmark.extra_info[f"times_{name}"] = round(
                    median(measured) / ours_stats.median, 3
                )
                benchmark.extra_info[f"times_{name}_min"] = round(min(measured) / ours_stats.min, 3)
        benchmark.extra_info["torch"] = torch.__version__
        benchmark.extra_info["threads"] = torch.get_num_threads()

    return run
