# SPDX-License-Identifier: Apache-2.0
"""A stream on a card: the operators as one CUDA graph a frame, and engines; the pixels are those of the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import random_model

from vinpaint.inpainting import Inpainter
from vinpaint.nn import InpainterConfig
from vinpaint.streaming import Streamer

pytestmark = pytest.mark.needs_cuda


def _clip(frames: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (frames, 48, 64, 3), dtype=np.uint8)
    mask = np.zeros(clip.shape[:3], np.uint8)
    mask[:, 14:32, 20:44] = 255
    mask[5:7] = 0
    return clip, mask


def _streamed(
    lookahead: int, clip: np.ndarray, mask: np.ndarray, **options: Any
) -> list[np.ndarray]:
    """Twice the same shot: of the second all is captured already."""
    model = random_model(InpainterConfig(width=0.25, prefill="smooth"))
    streamer = Streamer(Inpainter(model, propagate="off", **options), lookahead=lookahead)
    shots = []
    for _ in range(2):
        found = [image for pair in zip(clip, mask, strict=True) for image in streamer.push(*pair)]
        shots.append(np.stack(found + streamer.flush()))
    return shots


@pytest.mark.parametrize("lookahead", [0, 3, 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_captured_stream_is_that_of_the_cpu(lookahead: int, dtype: torch.dtype) -> None:
    clip, mask = _clip()
    expected, _ = _streamed(lookahead, clip, mask)
    first, second = _streamed(lookahead, clip, mask, device="cuda", dtype=dtype)
    assert np.array_equal(first, second)
    assert np.array_equal(first[mask == 0], clip[mask == 0])
    difference = np.abs(first.astype(int) - expected)[mask > 0]
    assert difference.mean() < (0.2 if dtype == torch.float32 else 2)


def test_deep_pixels_are_not_captured_and_stay_deep() -> None:
    clip, mask = _clip(6)
    deep = clip.astype(np.uint16) * 257
    expected, _ = _streamed(2, deep, mask)
    found, _ = _streamed(2, deep, mask, device="cuda")
    assert found.dtype == np.uint16
    assert np.abs(found.astype(int) - expected)[mask > 0].mean() < 0.2 * 257


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_an_engine_streams(backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(backend)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    clip, mask = _clip()
    expected, _ = _streamed(3, clip, mask)
    first, second = _streamed(3, clip, mask, device="cuda", backend=backend)
    assert np.array_equal(first, second)
    assert np.abs(first.astype(int) - expected)[mask > 0].mean() < 0.2
