# SPDX-License-Identifier: Apache-2.0
"""Brings the outline of an object to the edges of the picture."""

from __future__ import annotations

import cv2
import numpy as np

from vinpaint.masking.follow_cues import Picture, Plane

BAND, LEAST_BAND = 0.125, 3
"""How far the outline may move, as a share of the object's side, and in pixels at least."""

WEIGHT = 0.4
"""Of the cut in the mean with the share: it turns what the share is unsure of, and nothing else."""

LEAST_PIXELS = 30
"""Of the object: fewer have no colours to cut by."""

GAUSSIANS = 65
"""Numbers that OpenCV keeps the colours of a side in."""


def settled(picture: Picture, share: Plane) -> Plane:
    """The share, moved towards a cut along the edges (GrabCut; Rother et al., 2004) near its outline.

    What shrinks or spreads a little with every frame is so brought back before it adds up.

    picture: uint8 (h, w, 3) RGB. share: float32 (h, w), 0 to 1. Returns the like.
    """
    on = share > 0.5
    pixels = np.count_nonzero(on)
    if pixels < LEAST_PIXELS:
        return share
    reach = max(LEAST_BAND, int(BAND * np.sqrt(pixels)))
    near = cv2.dilate(on.astype(np.uint8), _disc(reach)) > 0
    inner = cv2.erode(on.astype(np.uint8), _disc(reach // 2)) > 0
    guess = np.where(on, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    guess[~near], guess[inner] = cv2.GC_BGD, cv2.GC_FGD
    if near.all() or not inner.any():
        return share
    # It finds its first Gaussians by chance: the same ones for the same frames.
    cv2.setRNGSeed(0)
    of_around, of_object = np.zeros((1, GAUSSIANS)), np.zeros((1, GAUSSIANS))
    no_box = (0, 0, 0, 0)
    bgr = np.ascontiguousarray(picture[..., ::-1])
    cv2.grabCut(bgr, guess, no_box, of_around, of_object, 1, cv2.GC_INIT_WITH_MASK)
    cut = (guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)
    return np.asarray(share + WEIGHT * (cut - share), np.float32)


def _disc(radius: int) -> Picture:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2), np.uint8)
