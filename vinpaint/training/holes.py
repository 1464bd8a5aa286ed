# SPDX-License-Identifier: Apache-2.0
"""Synthetic holes for training: (F, H, W) boolean arrays, ``True`` in the hole, all from one generator."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BOX_SIDE = (0.375, 0.5)
"""The paper's training hole: sides of the box as shares of the frame's."""

Hole = NDArray[np.bool_]


def static_box(rng: np.random.Generator, frames: int, height: int, width: int) -> Hole:
    """The paper's hole: one box, at the same place in every frame."""
    top, left, h, w = _box(rng, height, width)
    hole = np.zeros((frames, height, width), dtype=bool)
    hole[:, top : top + h, left : left + w] = True
    return hole


def moving_box(rng: np.random.Generator, frames: int, height: int, width: int) -> Hole:
    """A box that crosses the frame in a straight line."""
    _, _, h, w = _box(rng, height, width)
    ends = rng.uniform(0, (height - h, width - w), size=(2, 2))
    path = np.linspace(ends[0], ends[1], frames).round().astype(int)
    hole = np.zeros((frames, height, width), dtype=bool)
    for plane, (top, left) in zip(hole, path, strict=True):
        plane[top : top + h, left : left + w] = True
    return hole


def free_form(rng: np.random.Generator, frames: int, height: int, width: int) -> Hole:
    """Thick strokes and blobs that drift together through the frame."""
    canvas = np.zeros((2 * height, 2 * width), dtype=np.uint8)
    side = min(height, width)
    for _ in range(rng.integers(1, 4)):
        points = rng.uniform((0.25, 0.25), (0.75, 0.75), size=(rng.integers(2, 5), 2))
        line = (points * (2 * width, 2 * height)).astype(np.int32)
        cv2.polylines(canvas, [line], False, 255, int(rng.uniform(0.05, 0.22) * side), cv2.LINE_8)
    drift = rng.uniform(-0.25, 0.25, size=(2, 2)) * (height, width)
    path = np.linspace(drift[0], drift[1], frames) + np.array((height / 2, width / 2))
    hole = np.stack(
        [canvas[t : t + height, w : w + width] > 0 for t, w in path.round().astype(int)]
    )
    return hole if hole.any(axis=(1, 2)).all() else static_box(rng, frames, height, width)


def random_hole(rng: np.random.Generator, frames: int, height: int, width: int) -> Hole:
    """One of the kinds above: half of them the paper's box, a quarter each of the others."""
    kind = (static_box, moving_box, free_form)[rng.choice(3, p=[0.5, 0.25, 0.25])]
    return kind(rng, frames, height, width)


def _box(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    share = rng.uniform(*BOX_SIDE, size=2)
    h, w = round(share[0] * height), round(share[1] * width)
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
