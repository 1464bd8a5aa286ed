# SPDX-License-Identifier: Apache-2.0
"""How much brighter one frame is than the next: flashes, fades, and a camera that adjusts itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vinpaint.propagation.flow import Flow
from vinpaint.propagation.grid import fetched

FEWEST = 24
"""Grid points below which the two frames count as equally bright."""

USABLE = (12, 243)
"""Values below or above are crushed or clipped and say nothing."""


def log_gain(
    colours: NDArray[np.float32],
    known: NDArray[np.bool_],
    other: NDArray[np.float32],
    other_known: NDArray[np.bool_],
    flow: Flow,
) -> NDArray[np.float64]:
    """The logarithm, for red, green and blue, of how much brighter a frame is than another: the median over the grid.

    Args:
        colours: (h, w, 3) on the grid, 0 to 255.
        known: (h, w), without the hole.
        other, other_known: the other frame's.
        flow: (h, w, 2), from the frame to the other, in pixels.
    """
    low, high = USABLE
    moved = fetched(other, flow)
    seen = known & (fetched((~other_known).astype(np.float32), flow) == 0)
    seen &= (np.minimum(colours, moved) > low).all(-1) & (np.maximum(colours, moved) < high).all(-1)
    if np.count_nonzero(seen) < FEWEST:
        return np.zeros(3)
    return np.asarray(np.median(np.log(colours[seen] / moved[seen]), axis=0), np.float64)
