# SPDX-License-Identifier: Apache-2.0
"""A window of a shot: which frames, which crop, turned and coloured how."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to a window of footage, at random.

    Attributes:
        enabled: ``false`` is the paper's plain sampling: consecutive frames and a crop at full
            scale, whatever the other options say.
        scale: least and greatest factor by which footage is made smaller; as far as a shot is
            large enough.
        flip: share of samples that are mirrored left to right.
        speed: every so many frames at most; 1: consecutive frames alone.
        reverse: share of samples that run backwards.
        swap_channels: share of samples whose red, green and blue change places.
        gain: least and greatest factor on each channel.
        gamma: least and greatest exponent on each channel.
    """

    enabled: bool = True
    scale: tuple[float, float] = (1.0, 4.0)
    flip: float = 0.5
    speed: int = 2
    reverse: float = 0.5
    swap_channels: float = 0.5
    # Real footage is mostly grey; with other colours and tone curves the colour to fill in can
    # only be learned from around the hole.
    gain: tuple[float, float] = (0.6, 1.0)
    gamma: tuple[float, float] = (0.6, 1.6)

    def __post_init__(self) -> None:
        for name in ("flip", "reverse", "swap_channels"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"augment.{name}: expected a share from 0 to 1, got {getattr(self, name)}"
                )
        if self.speed < 1:
            raise InputError(f"augment.speed: expected at least 1, got {self.speed}")
        for name, least in (("scale", 1.0), ("gain", 0.0), ("gamma", 0.0)):
            low, high = getattr(self, name)
            if not least <= low <= high or high == 0:
                raise InputError(
                    f"augment.{name}: expected {least:g} <= least <= greatest, got {low}, {high}"
                )
        if self.gain[1] > 1:
            raise InputError(f"augment.gain: expected at most 1, got {self.gain[1]}")


PLAIN = AugmentConfig(
    scale=(1, 1), flip=0, speed=1, reverse=0, swap_channels=0, gain=(1, 1), gamma=(1, 1)
)
"""The paper's sampling."""

IDENTITY = np.arange(256, dtype=np.uint8)


def random_window(
    rng: np.random.Generator, shot: Pixels, frames: int, size: int, config: AugmentConfig
) -> Pixels:
    """A window as (3, frames, size, size) of a (F, H, W, 3) shot that is long and large enough."""
    if not config.enabled:
        config = PLAIN
    fastest = max(1, min(config.speed, (len(shot) - 1) // max(frames - 1, 1)))
    speed = int(rng.integers(1, fastest + 1))
    start = int(rng.integers(len(shot) - (frames - 1) * speed))
    backwards = rng.random() < config.reverse
    height, width = shot.shape[1:3]
    largest = min(height, width)
    sides = [min(max(size, round(size * scale)), largest) for scale in config.scale]
    side = int(rng.integers(sides[0], sides[1] + 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    mirrored = rng.random() < config.flip
    order = rng.permutation(3) if rng.random() < config.swap_channels else np.arange(3)
    curves = _tone_curves(rng, config)

    window = shot[start : start + (frames - 1) * speed + 1 : speed]
    if backwards:
        window = window[::-1]
    crop = window[:, top : top + side, left : left + side]
    small = np.empty((frames, size, size, 3), np.uint8)
    if side == size:
        small[:] = crop
    else:
        for frame, target in zip(crop, small, strict=True):
            cv2.resize(frame, (size, size), dst=target, interpolation=cv2.INTER_AREA)
    # Frames below each other make one picture, so that each step is one call.
    picture = small.reshape(frames * size, size, 3)
    planes = np.empty((3, frames * size, size), np.uint8)
    for channel, plane, curve in zip(order.tolist(), planes, curves, strict=True):
        cv2.extractChannel(picture, channel, dst=plane)
        if not np.array_equal(curve, IDENTITY):
            cv2.LUT(plane, curve, dst=plane)
        if mirrored:
            cv2.flip(plane, 1, dst=plane)
    return planes.reshape(3, frames, size, size)


def _tone_curves(rng: np.random.Generator, config: AugmentConfig) -> list[Pixels]:
    """A random gamma and gain for each channel as tables of 256 values."""
    gain, gamma = rng.uniform(*config.gain, 3), rng.uniform(*config.gamma, 3)
    level = np.linspace(0, 1, 256)
    return [(255 * a * level**b).round().astype(np.uint8) for a, b in zip(gain, gamma, strict=True)]
