# SPDX-License-Identifier: Apache-2.0
"""One object, followed from frame to frame: cues and a memory, weighed by a small network."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vinpaint.masking.follow_cues import (
    Bins,
    Colors,
    Picture,
    Plane,
    bins_of,
    moved,
    moves_along,
)
from vinpaint.masking.follow_edges import settled
from vinpaint.masking.follow_net import MULTIPLE, STRIDE, FollowNet, load_network, network_input
from vinpaint.propagation.flow import Flow

OBJECT_SIDE = 80
"""Square root of the object's area at which it is looked at, in pixels: the size that the network was
trained on. Smaller ones are not enlarged."""

LONGEST = 256
"""Long side of what is looked at, in pixels."""

MARGIN, LEAST_MARGIN = 0.4, 16
"""Surroundings that are looked at, as a share of the object's side, and in pixels at least: it may move
and stretch so far in a frame without being cut off."""

SEEN = 20
"""Pixels below which the object is out of sight."""

GROWTH, LEAST_GROWTH = 0.1, 4
"""How much wider every frame is searched around where an object was last seen, and in pixels at least."""

RECENT = (1, 4)
"""How many frames back the remembered frames lie; besides, the painted one is never forgotten."""

Values = TypeVar("Values", np.uint8, np.float32)


@dataclass(frozen=True)
class Window:
    """A part of the frame, and the scale at which it is looked at."""

    top: int
    bottom: int
    left: int
    right: int
    scale: float

    @classmethod
    def around(cls, share: Plane) -> Window:
        """Of an object that is somewhere in ``share``."""
        rows, columns = np.nonzero(share > 0.3)
        top, bottom = int(rows.min()), int(rows.max()) + 1
        left, right = int(columns.min()), int(columns.max()) + 1
        margin = int(MARGIN * np.sqrt((bottom - top) * (right - left)) + LEAST_MARGIN)
        scale = min(1.0, OBJECT_SIDE / float(np.sqrt(max(1.0, float(share.sum())))))
        return cls(top, bottom, left, right, scale)._grown(margin, share.shape)

    def searched(self, shape: tuple[int, ...]) -> Window:
        """The wider one to look for a lost object in."""
        longest = max(self.bottom - self.top, self.right - self.left)
        return self._grown(max(LEAST_GROWTH, int(GROWTH * longest)), shape)

    def _grown(self, margin: int, shape: tuple[int, ...]) -> Window:
        top, bottom = max(0, self.top - margin), min(shape[0], self.bottom + margin)
        left, right = max(0, self.left - margin), min(shape[1], self.right + margin)
        scale = min(self.scale, LONGEST / max(bottom - top, right - left))
        return replace(self, top=top, bottom=bottom, left=left, right=right, scale=scale)

    def cut(self, values: NDArray[Values]) -> NDArray[Values]:
        """What is in it, (h, w) or (h, w, C), brought to its scale."""
        part = values[self.top : self.bottom, self.left : self.right]
        if self.scale < 1:
            height, width = (max(STRIDE, round(side * self.scale)) for side in part.shape[:2])
            resized: Any = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
            return np.asarray(resized, values.dtype)
        return np.ascontiguousarray(part)

    def put_back(self, plane: Plane, shape: tuple[int, ...]) -> Plane:
        """The whole frame, zero outside of the window."""
        whole = np.zeros(shape, np.float32)
        size = self.right - self.left, self.bottom - self.top
        whole[self.top : self.bottom, self.left : self.right] = cv2.resize(
            plane, size, interpolation=cv2.INTER_LINEAR
        )
        return whole


@dataclass(frozen=True)
class _Remembered:
    """Places of a frame: their keys (1, KEYS, N), and how much of each is object, (1, N)."""

    keys: Tensor
    shares: Tensor


class Follower:
    """Follows what is painted on a frame through the frames that come after it, or before it.

    Args:
        picture: uint8 (h, w, 3) RGB.
        mask: bool (h, w), somewhere ``True``.
        network: None takes the one that ships with the package.
    """

    def __init__(
        self, picture: Picture, mask: NDArray[np.bool_], network: FollowNet | None = None
    ) -> None:
        self._network = network or load_network()
        self._share = mask.astype(np.float32)
        self._window = Window.around(self._share)
        seen, share = self._window.cut(picture), self._window.cut(self._share)
        bins = bins_of(seen)
        self._painted_colors, self._recent_colors = Colors(bins, share), Colors(bins, share)
        with torch.inference_mode():
            _, keys = self._network.encode(network_input(_padded(seen)))
        self._painted = _remembered(keys, share)
        self._recent: deque[_Remembered] = deque(maxlen=max(RECENT))

    def step(self, picture: Picture, back: Flow, forth: Flow) -> Plane:
        """How surely every pixel of the next frame is the object: float32 (h, w), 0 to 1.

        back: optical flow from the next frame to the one before; forth: the other way.
        """
        shape = self._share.shape
        there, trust = moved(self._share, back, forth)
        if np.count_nonzero(there > 0.5) >= SEEN:
            self._window = Window.around(there)
        else:
            self._window = self._window.searched(shape)
        seen = self._window.cut(picture)
        bins = bins_of(seen)
        cues = self._cues(bins, self._window.cut(there), self._window.cut(trust), back)
        share, keys = self._weigh(seen, cues)
        share = settled(seen, share)
        self._recent_colors.renew(bins, share)
        self._recent.append(_remembered(keys, share))
        self._share = self._window.put_back(share, shape)
        return self._share

    def _cues(self, bins: Bins, there: Plane, trust: Plane, back: Flow) -> Plane:
        """What the network weighs, (CUES, H, W) with H and W multiples of MULTIPLE."""
        flow = self._window.cut(back) * np.float32(self._window.scale)
        along = moves_along(there, flow)
        planes = [trust, self._painted_colors.odds(bins), self._recent_colors.odds(bins), along]
        return np.stack(
            [
                _padded(2 * there - 1, -1),
                *(_padded(plane) for plane in planes),
                _padded(np.ones_like(there), 0),
            ]
        )

    def _weigh(self, seen: Picture, cues: Plane) -> tuple[Plane, Tensor]:
        """The object's share in the window, and the keys of its places."""
        remembered = [self._painted]
        for back in RECENT:
            known = self._recent[max(-back, -len(self._recent))] if self._recent else self._painted
            remembered.append(known)
        with torch.inference_mode():
            picture = network_input(_padded(seen))
            features, key = self._network.encode(picture)
            reading = self._network.read(
                key,
                torch.cat([known.keys for known in remembered], 2),
                torch.cat([known.shares for known in remembered], 1),
            )
            odds = self._network(picture, torch.from_numpy(cues)[None], features, reading)
            share = odds.sigmoid()[0].numpy()
        height, width = seen.shape[:2]
        return np.ascontiguousarray(share[:height, :width]), key


def _remembered(keys: Tensor, share: Plane) -> _Remembered:
    shares = F.avg_pool2d(torch.from_numpy(_padded(share, 0))[None, None], STRIDE)
    return _Remembered(keys.flatten(2), shares.flatten(1))


def _padded(values: NDArray[Values], fill: float | None = None) -> NDArray[Values]:
    """Grown at the bottom and at the right to multiples of MULTIPLE; None repeats the border."""
    height, width = values.shape[:2]
    more = ((0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0))[: values.ndim]
    if fill is None:
        return np.pad(values, more, "edge")
    return np.pad(values, more, "constant", constant_values=fill)
