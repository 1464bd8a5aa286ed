# SPDX-License-Identifier: Apache-2.0
"""Optical flow between two pictures: OpenCV's by default, any other by the same signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]  # (h, w)
Flow = NDArray[np.float32]  # (h, w, 2): where a pixel went, to the right and down, in pixels
FlowEstimator = Callable[[Gray, Gray], Flow]
"""From two gray pictures, (h, w) uint8, to the flow (h, w, 2) float32 of the first's pixels. Called from threads."""


DIS_SIDE = 16
"""Smaller pictures make OpenCV's DIS flow fail, or crash."""


def dis_flow(first: Gray, second: Gray) -> Flow:
    """OpenCV's DIS flow, preset "medium" (Kroeger et al., ECCV 2016)."""
    calculate: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc
    height, width = first.shape
    margin = (0, max(0, DIS_SIDE - height)), (0, max(0, DIS_SIDE - width))
    pictures = (np.ascontiguousarray(np.pad(p, margin, "edge")) for p in (first, second))
    return np.asarray(calculate(*pictures, None)[:height, :width], np.float32)


def warp(picture: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """Fetch every pixel from where it went: ``picture(x + flow(x))``, bilinear, (h, w) or (h, w, C)."""
    x, y = destination(flow)
    warped = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def destination(flow: Flow) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Columns and rows, (h, w) each, where the pixels went."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return x, y
