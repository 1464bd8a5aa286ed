# SPDX-License-Identifier: Apache-2.0
"""Where each pixel of a hole can be seen, in another frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vinpaint import ops
from vinpaint.propagation.grid import CELL

Floats = NDArray[np.float32]


class Pointers(NamedTuple):
    """For n pixels of one frame, in the order of ``np.nonzero``, where each is seen.

    Attributes:
        source: index of the frame; -1: nowhere.
        x, y: column and row there, with fractions.
        error: pixels that the place is expected to be off; infinite for nowhere.
    """

    source: NDArray[np.int64]
    x: Floats
    y: Floats
    error: Floats


class Walk:
    """Follows the flow of a stretch of frames in one direction.

    Args:
        holes: (H, W) by the frames' indices, without a gap: the pixels in question.
        ways: the flow on the grid from each frame to the one ``step`` on, and its expected error; a frame that is missing
            has no way on.
        step: 1 to walk to later frames, -1 to earlier ones.
        reach: frames that a source may be away.
    """

    def __init__(
        self,
        holes: Mapping[int, NDArray[np.bool_]],
        ways: Callable[[int], tuple[Floats, Floats] | None],
        *,
        step: int,
        reach: int,
    ) -> None:
        self._first, self._step, self._reach = min(holes), step, reach
        frames = range(self._first, self._first + len(holes))
        self._hole = np.stack([holes[index] for index in frames])
        count, height, width = self._hole.shape
        self._flow = np.zeros((count, height // CELL, width // CELL, 2), np.float32)
        self._error = np.full(self._flow.shape[:3], np.inf, np.float32)
        for i, index in enumerate(frames):
            way = ways(index)
            if way is not None:
                self._flow[i], self._error[i] = way

    def __call__(self, index: int) -> Pointers:
        """Where the pixels of a frame's hole are seen."""
        frame = index - self._first
        source, place, error = ops.follow_flow(
            *map(torch.from_numpy, (self._flow, self._error, self._hole)),
            frame=frame,
            step=self._step,
            reach=self._reach,
            cell=CELL,
        )
        pixels = np.nonzero(self._hole[frame])
        found = source.numpy()[pixels].astype(np.int64)
        x, y = np.moveaxis(place.numpy()[pixels], -1, 0)
        return Pointers(np.where(found >= 0, found + self._first, -1), x, y, error.numpy()[pixels])
