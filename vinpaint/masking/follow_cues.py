# SPDX-License-Identifier: Apache-2.0
"""What speaks for a pixel being the followed object: where it came from, its colour, its motion."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.propagation.flow import Flow, destination

Picture = NDArray[np.uint8]  # (h, w, 3) RGB
Plane = NDArray[np.float32]  # (h, w)
Bins = NDArray[np.int32]  # (h, w), which colour a pixel has
Counts = NDArray[np.float32]  # (BINS**3,), sums to one

BINS = 16
"""Steps of lightness, of green to red and of blue to yellow that colours are counted in."""

LAB_ORIGIN = (0, 128, 128)
LAB_STEP = (16, 8, 8)
LAB_FIRST = (0, 8, 8)
"""Real colours keep near the middle of both colour axes: half of each axis is covered, twice as finely."""

RARE = 2e-4
"""Share of pixels below which a colour says nothing."""

MOST = 4.0
"""Log odds that a colour counts at most."""

SURE = 0.7
"""From this share on a pixel teaches the object's colours, and from one less it the background's."""

LEAST_PIXELS = 20
"""Fewer of the object's pixels teach nothing."""

RECENT_OBJECT, RECENT_AROUND = 0.1, 0.2
"""How much of the recent colours a frame renews: the background changes faster than the object."""


def bins_of(picture: Picture) -> Bins:
    """Which of BINS**3 colours every pixel has."""
    lab = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), np.float32)
    steps = (lab - LAB_ORIGIN) / LAB_STEP + LAB_FIRST
    light, green, blue = np.moveaxis(np.clip(steps, 0, BINS - 1).astype(np.int32), -1, 0)
    return np.asarray((light * BINS + green) * BINS + blue)


def count(bins: Bins, weights: Plane) -> Counts:
    """Colours under ``weights``, each spread a little over its neighbours."""
    counts: Any = np.bincount(bins.ravel(), weights.ravel(), BINS**3).reshape((BINS,) * 3)
    for axis in range(3):
        padded = np.pad(np.moveaxis(counts, axis, 0), ((1, 1), (0, 0), (0, 0)))
        mixed = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        counts = np.moveaxis(mixed, 0, axis)
    return (counts.ravel() / max(counts.sum(), 1e-6)).astype(np.float32)


class Colors:
    """The colours of an object and of what is around it."""

    def __init__(self, bins: Bins, share: Plane) -> None:
        self.object, self.around = self._of(bins, share)

    @staticmethod
    def _of(bins: Bins, share: Plane) -> tuple[Counts, Counts]:
        # Only what is sure teaches: soft edges hold the colours of both.
        return count(bins, share * (share > SURE)), count(bins, (1 - share) * (share < 1 - SURE))

    def renew(self, bins: Bins, share: Plane) -> None:
        """Let a new frame tell, unless the object is out of sight in it."""
        if np.count_nonzero(share > SURE) < LEAST_PIXELS:
            return
        new_object, new_around = self._of(bins, share)
        self.object = self.object + RECENT_OBJECT * (new_object - self.object)
        self.around = self.around + RECENT_AROUND * (new_around - self.around)

    def odds(self, bins: Bins) -> Plane:
        """-1 (around) to 1 (object) for every pixel, a little smoothed."""
        ratio = np.log((self.object + RARE) / (self.around + RARE)) / MOST
        return np.asarray(cv2.boxFilter(np.clip(ratio, -1, 1)[bins], -1, (3, 3)), np.float32)


def moved(share: Plane, back: Flow, forth: Flow) -> tuple[Plane, Plane]:
    """The share brought to the next frame, and how far the flows there and back agree, 0 to 1.

    back: from the next frame to the one of ``share``; forth: the other way.
    """
    x, y = destination(back)
    there: Any = cv2.remap(share, x, y, cv2.INTER_LINEAR)
    returned: Any = cv2.remap(forth, x, y, cv2.INTER_LINEAR)
    error = ((returned + back) ** 2).sum(2)
    trust = np.exp(-error / (2 + 0.05 * (back**2).sum(2)))
    return np.asarray(there, np.float32), np.asarray(trust, np.float32)


def moves_along(share: Plane, flow: Flow) -> Plane:
    """Whether a pixel moves like the object near it (1) or like the background near it (-1)."""
    reach = max(8.0, 0.1 * max(share.shape))

    def motion(weights: Plane) -> Any:
        # A little of everything everywhere: far from the object its mean motion counts.
        total = cv2.GaussianBlur(weights, (0, 0), reach) + 1e-4
        mean = (flow * weights[..., None]).sum((0, 1)) / (weights.sum() + 1e-4)
        return (cv2.GaussianBlur(flow * weights[..., None], (0, 0), reach) + 1e-4 * mean) / total[
            ..., None
        ]

    own = np.linalg.norm(flow - motion(share), axis=2)
    others = np.linalg.norm(flow - motion(1 - share), axis=2)
    return np.asarray((others - own) / (others + own + 1), np.float32)
