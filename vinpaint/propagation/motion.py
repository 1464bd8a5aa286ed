# SPDX-License-Identifier: Apache-2.0
"""The camera's motion between two frames: the homography that most of the flow follows."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.propagation.flow import Flow
from vinpaint.propagation.grid import places

Homography = NDArray[np.float64]  # (3, 3), of pixels

SPACING = 4
"""One of so many grid points in each direction is fitted."""

FEWEST = 12
"""Points below which nothing is fitted."""

TOLERANCE = 1.0
"""Pixels by which a point may miss the homography and still count for it."""

SHARE = 0.3
"""Of the points, that have to count; with fewer there is no one motion."""


def fit_motion(flow: Flow, known: NDArray[np.bool_]) -> Homography:
    """The homography that most of the known flow follows, by RANSAC; the identity where there is none.

    Args:
        flow: (h, w, 2) on the grid, in pixels.
        known: (h, w), where it is to be trusted.
    """
    x, y = places(*known.shape)
    start = np.stack(np.broadcast_arrays(x, y), axis=-1)[2::SPACING, 2::SPACING]
    chosen = known[2::SPACING, 2::SPACING]
    if np.count_nonzero(chosen) < FEWEST:
        return np.eye(3)
    start = start[chosen].astype(np.float32)
    end = start + flow[2::SPACING, 2::SPACING][chosen]
    found, counts = cv2.findHomography(start, end, cv2.RANSAC, TOLERANCE, maxIters=300)
    if found is None or np.mean(counts) < SHARE:  # type: ignore[redundant-expr]
        return np.eye(3)
    return np.asarray(found / found[2, 2], np.float64)


def motion_flow(motion: Homography, height: int, width: int) -> Flow:
    """The flow (h, w, 2) of a homography at the grid's points, in pixels."""
    x, y = places(height, width)
    column, row, depth = (m[0] * x + m[1] * y + m[2] for m in motion)
    return np.stack([column / depth - x, row / depth - y], axis=-1).astype(np.float32)
