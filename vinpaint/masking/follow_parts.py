# SPDX-License-Identifier: Apache-2.0
"""Tells what was painted apart: objects that lie well apart are followed each on its own."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Part = NDArray[np.bool_]  # (h, w)

MOST = 3
"""Parts at most: each costs time."""

GAP = 0.25
"""What lies nearer than this share of the largest part's side belongs together: pieces of one object."""

LEAST_SHARE = 0.15
"""Of the largest part's area: what is smaller is no object, but a piece of one."""


def parts_of(mask: Part) -> list[Part]:
    """The mask, split into its largest parts; every pixel is in one of them.

    mask: bool (h, w), somewhere ``True``.
    """
    on = mask.astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(on)
    if count == 2:
        return [mask]
    reach = int(GAP * np.sqrt(stats[1:, cv2.CC_STAT_AREA].max()) / 2)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    _, labels = cv2.connectedComponents(cv2.dilate(on, disc))
    areas = np.bincount(labels[mask])
    largest = np.argsort(-areas)[:MOST]
    large = [part for part in largest if areas[part] >= LEAST_SHARE * areas.max()]
    away = [
        cv2.distanceTransform((~(mask & (labels == part))).astype(np.uint8), cv2.DIST_L2, 5)
        for part in large
    ]
    nearest = np.argmin(away, axis=0)
    return [mask & (nearest == index) for index in range(len(large))]
