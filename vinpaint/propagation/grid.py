# SPDX-License-Identifier: Apache-2.0
"""The coarse grid on which flow is completed: one point for every 4 x 4 pixels, at their centre."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.propagation.flow import Flow, warp

CELL = 4
"""Pixels to a point, in height and in width."""


def reduced(picture: NDArray[Any]) -> NDArray[np.float32]:
    """The mean of every cell: (h, w) or (h, w, C), sides multiples of 4, to float32 (h/4, w/4) or (h/4, w/4, C)."""
    height, width = picture.shape[:2]
    size = (width // CELL, height // CELL)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def any_in_cell(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(h, w) to (h/4, w/4): cells in which any pixel is set."""
    height, width = mask.shape
    cells = mask.reshape(height // CELL, CELL, width // CELL, CELL)
    return np.asarray(cells.any(axis=(1, 3)))


def places(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel columns (1, w) and rows (h, 1) of the points."""
    offset = (CELL - 1) / 2
    x, y = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
    return x[None] * CELL + offset, y[:, None] * CELL + offset


def fetched(values: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """Values (h, w) or (h, w, C) of the points where the pixels of these points went, bilinear."""
    return warp(values, flow / np.float32(CELL))
