# SPDX-License-Identifier: Apache-2.0
"""The ground truth's motion, and how well a filled clip follows it."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.propagation.flow import Flow, destination, dis_flow, warp

Frames = NDArray[np.uint8]  # (F, H, W, 3), red green blue
Mask = NDArray[np.bool_]  # (F, H, W), True in the hole

CONSISTENCY = (0.01, 0.5)
"""Forward flow f and backward flow b agree where ``|f + b|² < 0.01 (|f|² + |b|²) + 0.5``, in px² (Sundaram, Brox
and Keutzer, ECCV 2010)."""


class TruthFlow:
    """Motion between neighbouring frames of a true clip; computed once, used for every method's filling of it.

    The flow is OpenCV's DIS flow, preset "medium", on the gray frames.

    Args:
        truth: (F, H, W, 3) uint8.

    Attributes:
        flows: F - 1 arrays (H, W, 2): where each pixel of frame t is in frame t + 1, relative to it.
        backs: F - 1 arrays: where each pixel of frame t + 1 was in frame t.
        valid: (F - 1, H, W) bool: pixels that stay in the frame and whose flow the flow back confirms, by
            :data:`CONSISTENCY`.
    """

    def __init__(self, truth: Frames) -> None:
        gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in truth]
        self.flows: list[Flow] = []
        self.backs: list[Flow] = []
        self.valid = np.zeros((max(len(truth) - 1, 0), *truth.shape[1:3]), dtype=bool)
        for index in range(len(truth) - 1):
            pair = gray[index], gray[index + 1]
            forward, backward = dis_flow(*pair), dis_flow(*pair[::-1])
            self.flows.append(forward)
            self.backs.append(backward)
            self.valid[index] = _confirmed(forward, backward)


def warp_error(clip: Frames, mask: Mask, flows: TruthFlow) -> float:
    """Mean squared difference of each frame and the next one warped to it by the truth's flow, times 1000.

    Over the pixels that are filled in both frames and whose flow is valid, and their channels, of the whole clip: how
    steady the fill is, while how far it is from the truth is for the other scores. Pixels on a scale of 0 to 1. NaN
    where there is none. The truth's own warp error is not 0: light changes, flow is not exact.

    Args:
        clip: (F, H, W, 3) uint8: a filled clip, or the truth itself.
        mask: (F, H, W) bool.
        flows: of the truth.
    """
    total, pixels = 0.0, 0
    for index, flow in enumerate(flows.flows):
        still_filled = warp(mask[index + 1].astype(np.float32), flow) == 1
        chosen = mask[index] & still_filled & flows.valid[index]
        if not chosen.any():
            continue
        earlier, later = (clip[i].astype(np.float32) for i in (index, index + 1))
        difference = (earlier - warp(later, flow))[chosen] / 255
        total += float(np.square(difference).sum(dtype=np.float64))
        pixels += difference.size
    return 1000 * total / pixels if pixels else math.nan


def _confirmed(forward: Flow, backward: Flow) -> NDArray[np.bool_]:
    height, width = forward.shape[:2]
    x, y = destination(forward)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    back = warp(backward, forward)
    share, offset = CONSISTENCY
    gap = np.square(forward + back).sum(-1)
    length = np.square(forward).sum(-1) + np.square(back).sum(-1)
    confirmed: NDArray[np.bool_] = inside & (gap < share * length + offset)
    return confirmed
