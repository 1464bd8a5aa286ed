# SPDX-License-Identifier: Apache-2.0
"""A stream on the CPU, a frame at a time, against the same clip at once: what the latency costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness import SMOKE

from vinpaint.devices import resolve_precision
from vinpaint.inpainting import Inpainter
from vinpaint.painting import Image
from vinpaint.pretrained import load_pretrained
from vinpaint.streaming import Streamer
from vinpaint.video.windows import Plan, Shot, whole_region

FRAMES, SIZE = (16, 32) if SMOKE else (96, 128)


@pytest.mark.parametrize("lookahead", [0, 13])
def test_stream(lookahead: int, versus, benchmark) -> None:
    """Frames of 128 x 128, a box a quarter of each, without propagation; a stream that is under way."""
    benchmark.group = f"stream, {SIZE} x {SIZE}, CPU"
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[SIZE // 4 : 3 * SIZE // 4, SIZE // 4 : 3 * SIZE // 4] = 255
    dtype = resolve_precision("auto", torch.device("cpu"))
    inpainter = Inpainter(load_pretrained(), dtype=dtype, propagate="off")
    streamer = Streamer(inpainter, lookahead=lookahead, area=(0, 0, SIZE, SIZE))
    region = whole_region(SIZE, SIZE, None, 1)
    plan = Plan((Shot(0, FRAMES, (region,)),), FRAMES)

    def ours() -> list[Image]:
        return [image for frame in clip for image in streamer.push(frame, mask)]

    def at_once() -> list[Image]:
        return list(inpainter.fill(((frame, mask) for frame in clip), plan))

    assert len(ours()) == FRAMES - lookahead
    finished = ours() + streamer.flush()
    assert len(finished) == FRAMES + lookahead
    versus(ours, {"clip_at_once": at_once})
    benchmark.extra_info["dtype"] = str(dtype)
    benchmark.extra_info["frames_per_second"] = FRAMES / benchmark.stats.stats.median
