# SPDX-License-Identifier: Apache-2.0
"""A synthetic camera that films photographs: it pans, zooms and turns, with parallax."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.video.images import eight_bit, read_picture

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

ASPECT = 4 / 3
"""Long side of a camera's picture divided by its short side."""

SUBPIXELS = 2
"""Samples a pixel and axis; with one, sharpness would pulse as the picture slides by."""


@dataclass(frozen=True)
class CameraConfig:
    """How photographs are filmed. A move is smooth; each limit is for a whole clip.

    Attributes:
        clips: clips from one photograph.
        frames: frames a clip.
        view: least and greatest part of the photograph that is seen at a time, by its sides.
        pan: greatest travel, in short sides of the picture.
        zoom: greatest growth or shrinkage of what is seen, as a factor.
        rotation: greatest turn to either side, in degrees.
        parallax: how much further than the middle the nearest parts travel, as a share of the pan.
    """

    clips: int = 2
    frames: int = 48
    view: tuple[float, float] = (0.3, 0.7)
    pan: float = 0.6
    zoom: float = 1.3
    rotation: float = 8.0
    parallax: float = 0.25

    def __post_init__(self) -> None:
        if self.clips < 1 or self.frames < 2:
            raise InputError(
                "camera: expected at least 1 clip of at least 2 frames, "
                f"got clips={self.clips}, frames={self.frames}"
            )
        if not 0 < self.view[0] <= self.view[1] <= 1:
            raise InputError(f"camera.view: expected 0 < least <= greatest <= 1, got {self.view}")
        if self.zoom < 1 or self.pan < 0 or self.rotation < 0 or not 0 <= self.parallax < 1:
            raise InputError(
                "camera: expected zoom >= 1, pan >= 0, rotation >= 0 and 0 <= parallax < 1, got "
                f"{self.zoom}, {self.pan}, {self.rotation}, {self.parallax}"
            )


@dataclass(frozen=True)
class Move:
    """Where the camera looks in each of F frames, in pixels of the photograph.

    Attributes:
        centre: (F, 2), x and y of the middle of the picture.
        scale: (F,), pixels of the photograph that one pixel of the picture spans.
        angle: (F,), turn of the camera in radians, clockwise.
        depth: (photo height, photo width) or smaller, nearness in [-1, 1] times the parallax;
            ``None``: all is equally far.
    """

    centre: Floats
    scale: Floats
    angle: Floats
    depth: NDArray[np.float32] | None = None


def film(
    path: Path, name: str, short_side: int, config: CameraConfig
) -> Iterator[tuple[int, Pixels]]:
    """Number of the first frame and (F, h, w, 3) pixels of every clip from one photograph.

    The moves depend on ``name`` alone, so the same photograph gives the same clips again.

    Raises:
        InputError: the file is no picture, or smaller than a clip.
    """
    photo = _photograph(path)
    turned = photo.shape[0] > photo.shape[1]
    size = (short_side, round(ASPECT * short_side))
    height, width = size[::-1] if turned else size
    if photo.shape[0] < height or photo.shape[1] < width:
        raise InputError(
            f"photos: {path} has {photo.shape[1]} x {photo.shape[0]} pixels; "
            f"expected at least {width} x {height}"
        )
    rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
    for number in range(config.clips):
        move = random_move(rng, photo.shape[:2], height, width, config)
        yield number * config.frames, render(photo, move, height, width)


def random_move(
    rng: np.random.Generator,
    photo: tuple[int, ...],
    height: int,
    width: int,
    config: CameraConfig,
) -> Move:
    """A smooth move that never sees the edge of a photograph; ``photo`` is its (height, width)."""
    fit = min(photo[0] / height, photo[1] / width)
    scale = max(1.0, fit * rng.uniform(*config.view)) * np.exp(
        smooth_path(rng.uniform(-0.5, 0.5, 3) * np.log(config.zoom), config.frames)
    )
    angle = smooth_path(
        np.radians(rng.uniform(-config.rotation, config.rotation, 3)), config.frames
    )
    depth = config.parallax * _smooth_field(rng, photo[1] / photo[0])
    # Half of what is seen along x and y at the widest moment, parallax included.
    half = 0.5 * np.abs(scale * (np.cos(angle) * np.array([[width], [height]]))) + 0.5 * np.abs(
        scale * (np.sin(angle) * np.array([[height], [width]]))
    )
    travel = config.pan * min(height, width) * scale.mean()
    reach = half.max(axis=1) + config.parallax * travel + 1
    room = np.array([photo[1], photo[0]]) / 2
    shrink = min(1.0, (room / reach).min())
    scale, travel, reach = scale * shrink, travel * shrink, reach * shrink
    start = rng.uniform(reach, 2 * room - reach)
    stops = start + travel * rng.uniform(-1, 1, size=(3, 2)) / np.sqrt(2)
    stops[0] = start
    centre = smooth_path(np.clip(stops, reach, 2 * room - reach), config.frames)
    return Move(centre, scale, angle, depth)


def render(photo: Pixels, move: Move, height: int, width: int) -> Pixels:
    """What the camera sees: (F, height, width, 3) of a (H, W, 3) photograph."""
    # Made smaller first, so that neighbouring samples are neighbouring pixels and nothing aliases.
    reduced = min(1.0, SUBPIXELS / float(move.scale.min()))
    size = (round(photo.shape[1] * reduced), round(photo.shape[0] * reduced))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA) if reduced < 1 else photo
    factor = np.array([size[0] / photo.shape[1], size[1] / photo.shape[0]])
    samples = (np.arange(width * SUBPIXELS) + 0.5) / SUBPIXELS - width / 2
    lines = (np.arange(height * SUBPIXELS) + 0.5) / SUBPIXELS - height / 2
    x, y = np.meshgrid(samples, lines)
    frames = np.empty((len(move.centre), height, width, 3), np.uint8)
    for frame, centre, scale, angle in zip(
        frames, move.centre, move.scale, move.angle, strict=True
    ):
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        seen_x = (centre[0] + cos * x - sin * y) * factor[0] - 0.5
        seen_y = (centre[1] + sin * x + cos * y) * factor[1] - 0.5
        seen_x, seen_y = seen_x.astype(np.float32), seen_y.astype(np.float32)
        if move.depth is not None:
            shift = (centre - move.centre[0]) * factor
            seen_x, seen_y = _with_parallax(seen_x, seen_y, shift, move.depth, size)
        seen = cv2.remap(small, seen_x, seen_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        frame[:] = cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA)
    return frames


def _with_parallax(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    shift: Floats,
    depth: NDArray[np.float32],
    size: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where to look when a part of nearness d has moved on by d times ``shift``."""
    # The nearness is that of the place looked at, so the place is found by iteration.
    columns, rows = (depth.shape[1] - 1) / (size[0] - 1), (depth.shape[0] - 1) / (size[1] - 1)
    seen_x, seen_y = x, y
    for _ in range(4):
        near = cv2.remap(
            depth,
            seen_x * np.float32(columns),
            seen_y * np.float32(rows),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        seen_x, seen_y = x + near * np.float32(shift[0]), y + near * np.float32(shift[1])
    return seen_x, seen_y


def _smooth_field(rng: np.random.Generator, aspect: float) -> NDArray[np.float32]:
    """A ramp in a random direction, bent a little; values in [-1, 1]."""
    y, x = np.mgrid[-1:1:64j, -aspect:aspect:64j]
    direction = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(direction) * x + np.sin(direction) * y
    bent = ramp + 0.4 * np.sin(2 * x + rng.uniform(0, 6)) * np.sin(2 * y + rng.uniform(0, 6))
    return (bent / np.abs(bent).max()).astype(np.float32)


def smooth_path(stops: Floats, frames: int) -> Floats:
    """A smooth curve from the first of three stops to the last; it stays within their hull."""
    t = np.linspace(0, 1, frames).reshape(-1, *[1] * (stops.ndim - 1))
    return (1 - t) ** 2 * stops[0] + 2 * t * (1 - t) * stops[1] + t**2 * stops[2]


def _photograph(path: Path) -> Pixels:
    picture = eight_bit(read_picture(path, "photos"))
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])
