# SPDX-License-Identifier: Apache-2.0
"""Milliseconds a frame of 432 x 240 for what is carried into the hole, for a large hole and for a small one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from harness import ROUNDS, SMOKE
from numpy.typing import NDArray

from vinpaint.propagation import Carried, Propagator
from vinpaint.video.windows import make_plan

HEIGHT, WIDTH = 240, 432
FRAMES = 24 if SMOKE else 80

HOLES = {"quarter of each side": (60, 108), "small": (16, 28)}


@pytest.mark.parametrize("name", HOLES)
def test_propagation(benchmark, name: str) -> None:
    height, width = HOLES[name]
    truth = _pan(FRAMES)
    hole = np.zeros(truth.shape[:3], np.uint8)
    hole[:, 90 : 90 + height, 160 : 160 + width] = 255
    black = np.where(hole[..., None] > 0, np.uint8(0), truth)
    plan = make_plan(hole, FRAMES)
    propagator = Propagator()

    def carry() -> list[Carried]:
        return list(propagator(zip(black, hole, strict=True), plan))

    carried = np.stack([image for image, _, _ in carry()])
    known = (hole > 0) & (np.stack([mask for _, mask, _ in carry()]) == 0)
    assert known.sum() > 0.4 * (hole > 0).sum()
    assert np.abs(carried.astype(int) - truth)[known].mean() < 6
    benchmark.pedantic(carry, rounds=ROUNDS, iterations=1)
    benchmark.extra_info["milliseconds a frame"] = 1000 * benchmark.stats.stats.median / FRAMES


def _pan(frames: int) -> NDArray[np.uint8]:
    """A camera that pans over a still scene, 3 pixels a frame."""
    rng = np.random.default_rng(0)
    scene = np.zeros((HEIGHT, WIDTH + 3 * frames, 3), np.float32)
    for size in (6, 12, 24):
        coarse = rng.random((HEIGHT // size + 2, scene.shape[1] // size + 2, 3), dtype=np.float32)
        scene += cv2.resize(coarse, scene.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    scene = (255 * (scene - scene.min()) / (scene.max() - scene.min())).round()
    views = [scene[:, 3 * t : 3 * t + WIDTH] for t in range(frames)]
    return np.stack(views).astype(np.uint8)
