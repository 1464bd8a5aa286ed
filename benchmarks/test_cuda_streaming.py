# SPDX-License-Identifier: Apache-2.0
"""A stream on a GPU, one frame at a time, each a CUDA graph: frames a second, and the slowest of a hundred."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from cuda_harness import DEVICE, needs_gpu, quiet
from harness import SMOKE

from vinpaint.inpainting import Inpainter
from vinpaint.pretrained import load_pretrained
from vinpaint.streaming import Streamer

pytestmark = [needs_gpu, quiet]

SIZES = {"tiny": (48, 64)} if SMOKE else {"432x240": (240, 432), "1080p": (1080, 1920)}


@pytest.mark.parametrize("lookahead", [0, 13])
@pytest.mark.parametrize("size", SIZES)
def test_stream(size: str, lookahead: int, benchmark) -> None:
    """From a NumPy array to a NumPy array, the whole frame computed, a box a quarter of it, without propagation."""
    height, width = SIZES[size]
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (8, height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    inpainter = Inpainter(load_pretrained(), device=DEVICE, dtype=torch.bfloat16, propagate="off")
    streamer = Streamer(inpainter, lookahead=lookahead, area=(0, 0, width, height), thickness=1)
    count = 0

    def push() -> list[np.ndarray]:
        nonlocal count
        count += 1
        return streamer.push(frames[count % len(frames)], mask)

    for _ in range(lookahead + 5):
        finished = push()
    assert np.array_equal(finished[0][mask == 0], frames[(count - lookahead) % 8][mask == 0])
    seconds = []
    for _ in range(5 if SMOKE else 300):
        begun = time.perf_counter()
        push()
        seconds.append(time.perf_counter() - begun)
    benchmark.pedantic(push, rounds=5 if SMOKE else 100)
    median, slow = np.percentile(seconds, (50, 99))
    benchmark.group = "stream"
    benchmark.extra_info["size"], benchmark.extra_info["lookahead"] = size, lookahead
    benchmark.extra_info["frames_per_second"] = len(seconds) / sum(seconds)
    benchmark.extra_info["p99_times_median"] = slow / median
