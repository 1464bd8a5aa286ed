# SPDX-License-Identifier: Apache-2.0
"""Colours from where the pointers point, mixed and fitted to the pixels around the hole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from vinpaint.nn.prefill import SWEEPS as FILL_SWEEPS
from vinpaint.nn.prefill import harmonic_fill
from vinpaint.propagation.pointers import Floats, Pointers

AGE_ERROR = 0.02
"""Pixels of error that each frame between a pixel and its source stands for: the nearer source is preferred."""

HALF_TRUST = 8.0
"""Pixels of expected error at which half of what is carried is believed. Measured: the share of a carried pixel's detail
that is right falls like this on clips that neither the flow's network nor the tests have seen."""

LEAST_TRUST = 0.2
"""What is believed less is left to the networks."""

SWEEPS = 8
"""Of the harmonic fill that spreads the difference along the hole's edge into the hole."""

SEAM_DEPTH = 6.0
"""Pixels from the hole's edge at which a seam's correction has fallen to 1/e: what is different there, such as a
shadow of what was removed, is not different everywhere in the hole."""

ROW = 4096
"""Points that are fetched in a row: OpenCV's pictures have fewer than 32,767 rows and columns."""


def sample(
    pictures: Mapping[int, NDArray[Any]],
    pointers: Pointers,
    gains: Mapping[int, NDArray[np.float64]],
    index: int,
) -> Floats:
    """The colour (n, 3) that each pointer points at, as bright as frame ``index``; 0 where it points nowhere.

    Args:
        pictures: (H, W, 3), by the frame's index.
        pointers: n of them.
        gains: the logarithm of every frame's brightness, by its index.
        index: the frame that the colours are for.
    """
    colours = np.zeros((len(pointers.source), 3), np.float32)
    order = np.argsort(pointers.source, kind="stable")
    sources, starts = np.unique(pointers.source[order], return_index=True)
    for source, part in zip(sources.tolist(), np.split(order, starts[1:]), strict=True):
        if source < 0:
            continue
        rows = -(-len(part) // ROW)
        x, y = (
            np.resize(values[part], rows * ROW).reshape(rows, ROW)
            for values in (pointers.x, pointers.y)
        )
        fetched = cv2.remap(
            pictures[source], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        gain = np.exp(gains[index] - gains[source]).astype(np.float32)
        colours[part] = fetched.reshape(-1, 3)[: len(part)] * gain
    return colours


def mixing_weights(index: int, candidates: Sequence[Pointers]) -> tuple[Floats, Floats]:
    """How much each candidate counts, (candidates, n), inversely to its expected error and summing to 1; and the error
    (n,) of the best.

    Where there is no candidate the weights are 0 and the error is infinite.
    """
    errors = np.stack(
        [
            np.where(c.source >= 0, c.error + AGE_ERROR * np.abs(index - c.source), np.inf)
            for c in candidates
        ]
    ).astype(np.float32)
    best = errors.min(axis=0)
    found = np.isfinite(best)
    weights = np.zeros_like(errors)
    weights[:, found] = 1 / errors[:, found]
    weights[:, found] /= weights[:, found].sum(axis=0)
    return weights, best


def trusted(error: Floats) -> Floats:
    """From the expected error in pixels to the share of a carried pixel that is believed, 0 to 1."""
    trust = (1 / (1 + error / HALF_TRUST)).astype(np.float32)
    return np.where(trust < LEAST_TRUST, np.float32(0), trust)


def smooth_fill(
    picture: NDArray[np.float32], hole: NDArray[np.bool_], *, sweeps: int = FILL_SWEEPS
) -> NDArray[np.float32]:
    """The picture (h, w, C) with its hole (h, w) filled by :func:`vinpaint.nn.prefill.harmonic_fill`."""
    values = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None]
    filled = harmonic_fill(values, torch.from_numpy(hole)[None, None, None].float(), sweeps=sweeps)
    return filled[0, :, 0].permute(1, 2, 0).numpy()


def seam_correction(
    picture: NDArray[np.float32], carried: NDArray[np.float32], rim: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """What to add to carried pixels so that they meet the known ones without a seam, (h, w, 3).

    The difference on the rim, where a pixel is both known and carried, goes on smoothly into the hole and fades there:
    Poisson blending by a screened membrane. A frame that is brighter as a whole is not a seam; its gain is known.

    Args:
        picture: (h, w, 3), the frame.
        carried: (h, w, 3), on the rim what would have been carried there.
        rim: (h, w), where both exist.
    """
    if not rim.any():
        return np.zeros_like(picture)
    difference = np.where(rim[..., None], picture - carried, 0).astype(np.float32)
    membrane = smooth_fill(difference, ~rim, sweeps=SWEEPS)
    depth = cv2.distanceTransform((~rim).view(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(membrane * np.exp(-depth / SEAM_DEPTH)[..., None], np.float32)
