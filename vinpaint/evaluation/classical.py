# SPDX-License-Identifier: Apache-2.0
"""Fills that no training went into: what every network is held against.

Each takes uint8 (F, H, W, 3) frames and the bool (F, H, W) hole, and returns frames; what they leave outside the
hole does not matter.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from vinpaint.evaluation.data import Frames, Hole
from vinpaint.nn.prefill import harmonic_fill

RADIUS = 3
"""Pixels around a hole pixel that OpenCV's methods look at."""

SWEEPS = 200
"""Relaxation sweeps of the harmonic fill at every size: within about one of 255 of the exact solution."""


def mean(frames: Frames, hole: Hole) -> Frames:
    """The mean colour of the clip's known pixels."""
    filled = frames.copy()
    filled[hole] = frames[~hole].mean(axis=0).round().astype(np.uint8)
    return filled


def harmonic(frames: Frames, hole: Hole) -> Frames:
    """Each frame's hole filled smoothly from its edge: the solution of Laplace's equation."""
    filled = frames.copy()
    box = (slice(None), *_neighbourhood(hole))
    clip = torch.from_numpy(frames[box])[None].permute(0, 4, 1, 2, 3).float() / 255
    mask = torch.from_numpy(hole[box])[None, None].float()
    smooth = harmonic_fill(clip, mask, sweeps=SWEEPS)[0].permute(1, 2, 3, 0)
    filled[box] = (smooth.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return filled


def telea(frames: Frames, hole: Hole) -> Frames:
    """OpenCV's fast marching (Telea 2004), frame by frame."""
    return _opencv(frames, hole, cv2.INPAINT_TELEA)


def navier_stokes(frames: Frames, hole: Hole) -> Frames:
    """OpenCV's fluid dynamics (Bertalmio et al. 2001), frame by frame."""
    return _opencv(frames, hole, cv2.INPAINT_NS)


def temporal_median(frames: Frames, hole: Hole) -> Frames:
    """The median of what the clip shows at the same place; the harmonic fill where it never shows it."""
    filled = frames.copy()
    seen = hole.any(axis=0) & ~hole.all(axis=0)
    values = np.where(hole[:, seen, None], np.nan, frames[:, seen].astype(np.float32))
    median = np.nanmedian(values, axis=0).round().astype(np.uint8)
    filled[:, seen] = np.where(hole[:, seen, None], median, filled[:, seen])
    never = hole & hole.all(axis=0)
    return harmonic(filled, never) if never.any() else filled


def _neighbourhood(hole: Hole) -> tuple[slice, slice]:
    """Rows and columns that contain the hole of every frame, and one known pixel around it."""
    spans = []
    for axis in (1, 2):
        touched = np.flatnonzero(hole.any(axis=(0, 3 - axis)))
        spans.append(slice(max(0, int(touched[0]) - 1), int(touched[-1]) + 2))
    return spans[0], spans[1]


def _opencv(frames: Frames, hole: Hole, method: int) -> Frames:
    pairs = zip(frames, hole.view(np.uint8), strict=True)
    return np.stack([cv2.inpaint(frame, plane, RADIUS, method) for frame, plane in pairs])
