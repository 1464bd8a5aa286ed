# SPDX-License-Identifier: Apache-2.0
"""Clips whose moving object is known to the pixel: cut-outs, bent and thrown over other clips.

Cut-outs come from clips of a camera that stands still, by their difference from the still background,
with the motion that they had; from pictures with transparency; and as blobs of any clip's texture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.video.images import eight_bit, list_pictures, read_picture
from vinpaint.video.reader import open_clip

LONG_SIDE = 480
MOST_FRAMES = 300
"""Of a clip that are looked at."""

DIFFERENCE = 28
"""Grey values from which a pixel differs from the still background."""

MOVER_AREA = (0.004, 0.4)
"""Of the frame, that something that moves covers."""

MOVER_FRAMES = (28, 60)
"""Frames that something that moves is seen in."""

MOST_MOVERS = 12
"""Of a clip: so that no clip crowds out the others."""

SPEEDS = (2.0, 8.0, 25.0, 50.0)
"""Pixels that an object goes astray between two bends of its path, in a frame 480 wide."""

Curve = NDArray[np.float64]
Planes = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass
class Cutout:
    """An object alone: pictures (h, w, 3) uint8, and how opaque each pixel is, (h, w) 0 to 1."""

    pictures: list[NDArray[np.uint8]]
    opacity: list[NDArray[np.float32]]


@dataclass
class Stock:
    """What clips are made of."""

    backgrounds: list[NDArray[np.uint8]] = field(default_factory=list)
    movers: list[Cutout] = field(default_factory=list)
    stills: list[Cutout] = field(default_factory=list)


def read_stock(clips: list[Path], pictures: Path | None, still: list[str]) -> Stock:
    """All of it in memory: some 60 MB a clip. Objects are cut out of the clips named ``still``."""
    stock = Stock()
    for path in clips:
        try:
            frames = read_frames(path)
        except InputError as error:
            print(f"left out: {error}", flush=True)
            continue
        movers = find_movers(frames) if path.stem in still else []
        stock.movers += movers
        stock.backgrounds.append(frames[:120].copy())
        print(f"{path.name}: {len(frames)} frames, {len(movers)} movers", flush=True)
    for path in list_pictures(pictures, "--cutouts") if pictures else []:
        rgba = eight_bit(read_picture(path, "--cutouts"))
        if rgba.ndim == 3 and rgba.shape[2] == 4:
            opacity = (rgba[..., 3] / 255).astype(np.float32)
            stock.stills.append(Cutout([np.ascontiguousarray(rgba[..., :3])], [opacity]))
    return stock


def read_frames(path: Path) -> NDArray[np.uint8]:
    """The first frames, uint8 (F, h, w, 3) RGB."""
    clip = open_clip(path, argument="VIDEOS")
    scale = min(1.0, LONG_SIDE / max(clip.info.width, clip.info.height))
    frames = []
    for picture in clip.thumbnails(round(clip.info.width * scale)):
        frames.append(picture.image[..., ::-1])
        if len(frames) == MOST_FRAMES:
            break
    return np.stack(frames)


def find_movers(frames: NDArray[np.uint8]) -> list[Cutout]:
    """What moves before a camera that stands still."""
    some = np.linspace(0, len(frames) - 1, min(61, len(frames))).astype(int)
    still = np.median(frames[some], axis=0).astype(np.uint8)
    moving = [_difference(frame, still) for frame in frames]
    parts = [cv2.connectedComponentsWithStats(mask)[1:3] for mask in moving]
    taken: set[tuple[int, int]] = set()
    movers = []
    for start in range(0, len(frames) - MOVER_FRAMES[0], 5):
        for part in range(1, len(parts[start][1])):
            if (start, part) in taken or len(movers) == MOST_MOVERS:
                continue
            path = _trace(parts, start, part)
            taken.update((start + i, found) for i, found in enumerate(path))
            if len(path) >= MOVER_FRAMES[0]:
                masks = [parts[start + i][0] == found for i, found in enumerate(path)]
                movers.append(_centred(frames[start : start + len(path)], masks))
    return movers


def _difference(frame: NDArray[np.uint8], still: NDArray[np.uint8]) -> NDArray[np.uint8]:
    smooth = (cv2.GaussianBlur(picture, (5, 5), 0) for picture in (frame, still))
    mask = (cv2.absdiff(*smooth).max(2) > DIFFERENCE).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)), np.uint8)


def _trace(parts: list[Any], start: int, part: int) -> list[int]:
    """The part's number in every frame from ``start`` on, until it merges, splits or leaves."""
    path: list[int] = []
    for labels, stats in parts[start : start + MOVER_FRAMES[1]]:
        if path:
            before_labels, before_stats = parts[start + len(path) - 1]
            shared = np.bincount(labels[before_labels == path[-1]], minlength=len(stats))
            shared[0] = 0
            part, area = int(shared.argmax()), before_stats[path[-1]][4]
            change = stats[part][4] / area
            if shared[part] < 0.3 * min(area, stats[part][4]) or not 0.75 < change < 1.33:
                break
        x, y, width, height, area = stats[part]
        inside = x > 1 and y > 1 and x + width < labels.shape[1] - 1
        if not inside or y + height >= labels.shape[0] - 1:
            break
        if not MOVER_AREA[0] < area / labels.size < MOVER_AREA[1]:
            break
        path.append(part)
    return path


def _centred(frames: NDArray[np.uint8], masks: list[NDArray[np.bool_]]) -> Cutout:
    boxes = np.array([cv2.boundingRect(mask.astype(np.uint8)) for mask in masks])
    side = int(boxes[:, 2:].max() / 2 + 8)
    cutout = Cutout([], [])
    for frame, mask, (x, y, width, height) in zip(frames, masks, boxes, strict=True):
        shift = np.array([[1, 0, side - x - width / 2], [0, 1, side - y - height / 2]], np.float32)
        size = 2 * side, 2 * side
        picture = cv2.warpAffine(frame, shift, size, borderMode=cv2.BORDER_REPLICATE)
        # The outermost pixels hold the background's colours as well.
        inner = cv2.erode(mask.astype(np.uint8), np.ones((2, 2), np.uint8)).astype(np.float32)
        cutout.pictures.append(picture)
        cutout.opacity.append(cv2.warpAffine(inner, shift, size))
    return cutout


def compose(
    stock: Stock, rng: np.random.Generator, count: int, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A clip, uint8 (count, side, side, 3), and where its object is seen, bool (count, side, side)."""
    scene = _background(stock, rng, count, side).astype(np.float32)

    def thrown(size: float) -> Planes:
        return _throw(_pick(stock, rng), rng, count, side, size * side)

    colors, opacity = thrown(rng.uniform(0.2, 0.54))
    truth = opacity.copy()
    if rng.random() < 0.4:  # something of the same kind behind it
        scene = _over(scene, *thrown(rng.uniform(0.15, 0.4)))
    scene = _over(scene, colors, opacity)
    if rng.random() < 0.35:  # something that comes to hide it
        hiding_colors, hiding = thrown(rng.uniform(0.15, 0.4))
        hiding_colors[0], hiding[0] = 0, 0
        scene = _over(scene, hiding_colors, hiding)
        truth *= 1 - hiding
    if rng.random() < 0.3:
        gain = np.clip(1 + _curve(rng, count, 1, 0.05), 0.7, 1.3)
        scene *= gain[..., None, None]
    return np.clip(scene, 0, 255).astype(np.uint8), truth > 0.5


def _over(scene: NDArray[np.float32], colors: Any, opacity: Any) -> NDArray[np.float32]:
    return np.asarray(scene * (1 - opacity[..., None]) + colors, np.float32)


def _background(stock: Stock, rng: np.random.Generator, count: int, side: int) -> NDArray[np.uint8]:
    frames = stock.backgrounds[rng.integers(len(stock.backgrounds))]
    step = int(rng.choice([1, 1, 2]))
    start = int(rng.integers(0, max(1, len(frames) - count * step)))
    order = np.arange(start, start + count * step, step) % (2 * len(frames))
    order = np.minimum(order, 2 * len(frames) - 1 - order)  # there and back, if it is short
    if rng.random() < 0.5:
        order = order[::-1]
    height, width = frames.shape[1:3]
    scale = max(side / min(height, width), rng.uniform(0.5, 1))
    size = max(side, round(width * scale)), max(side, round(height * scale))
    top, left = rng.integers(0, size[1] - side + 1), rng.integers(0, size[0] - side + 1)
    resized = (cv2.resize(frames[i], size, interpolation=cv2.INTER_AREA) for i in order)
    return np.stack([frame[top : top + side, left : left + side] for frame in resized])


def _pick(stock: Stock, rng: np.random.Generator) -> Cutout:
    kind = rng.random()
    if stock.stills and 0.3 < kind < 0.6:
        return stock.stills[rng.integers(len(stock.stills))]
    if stock.movers and kind > 0.3:
        return stock.movers[rng.integers(len(stock.movers))]
    return _blob(stock.backgrounds[rng.integers(len(stock.backgrounds))], rng)


def _blob(frames: NDArray[np.uint8], rng: np.random.Generator) -> Cutout:
    picture = frames[rng.integers(len(frames))]
    side = 2 * int(min(picture.shape[:2]) * rng.uniform(0.2, 0.45))
    top, left = (int(rng.integers(0, length - side + 1)) for length in picture.shape[:2])
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    waves = (
        rng.normal() * 0.5 / k * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(1, 7)
    )
    radius = np.clip(1 + sum(waves), 0.2, None)
    radius *= (side / 2 - 3) / radius.max()
    outline = np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None] + side / 2
    opacity = np.zeros((side, side), np.uint8)
    cv2.fillPoly(opacity, [outline.astype(np.int32)], 1)
    part = picture[top : top + side, left : left + side]
    return Cutout([np.ascontiguousarray(part)], [opacity.astype(np.float32)])


def _curve(rng: np.random.Generator, count: int, width: int, scale: float) -> Curve:
    """Smooth random walks from 0, (count, width)."""
    bends = max(2, int(count / rng.uniform(6, 20)) + 2)
    points = np.cumsum(rng.normal(size=(bends, width)), 0)
    at = np.linspace(0, bends - 1, count)
    walks = np.stack([np.interp(at, np.arange(bends), points[:, i]) for i in range(width)], 1)
    kernel = np.hanning(9)[1:-1]
    padded = np.pad(walks, ((3, 3), (0, 0)), "edge")
    smooth = [np.convolve(walk, kernel / kernel.sum(), "valid") for walk in padded.T]
    curve = np.stack(smooth, 1)
    return np.asarray((curve - curve[0]) * scale)


def _throw(cutout: Cutout, rng: np.random.Generator, count: int, side: int, size: float) -> Planes:
    """The cut-out on its way: colours times opacity (count, side, side, 3), and opacity."""
    bend = _bending(cutout.opacity[0].shape, rng, count)
    order = (np.arange(count) + rng.integers(len(cutout.pictures))) % (2 * len(cutout.pictures))
    order = np.minimum(order, 2 * len(cutout.pictures) - 1 - order)
    area = max(20.0, float(cutout.opacity[0].sum()))
    scale = size / np.sqrt(area) * np.exp(np.clip(_curve(rng, count, 1, 0.15)[:, 0], -0.6, 0.6))
    angle = _curve(rng, count, 1, rng.choice([3, 12]))[:, 0]
    speed = rng.choice(SPEEDS) * 2 * side / 480
    center = _curve(rng, count, 2, speed) + rng.uniform((0.25, 0.3), (0.75, 0.7)) * side
    if rng.random() < 0.7:  # back and forth rather than out of the frame
        center = np.abs((center - 0.1 * side) % (1.6 * side) - 0.8 * side) + 0.1 * side
    gain, flipped = rng.uniform(0.8, 1.2, 3), rng.random() < 0.5
    colors = np.zeros((count, side, side, 3), np.float32)
    opacity = np.zeros((count, side, side), np.float32)
    for t in range(count):
        picture = cutout.pictures[order[t]].astype(np.float32) * gain.astype(np.float32)
        alpha = cutout.opacity[order[t]]
        if flipped:
            picture, alpha = picture[:, ::-1], alpha[:, ::-1]
        picture, alpha = bend(np.ascontiguousarray(picture), np.ascontiguousarray(alpha), t)
        step = center[t] - center[t - 1] if t else np.zeros(2)
        shares = int(np.clip(np.hypot(*step) / 4, 1, 4))
        middle = np.array(alpha.shape[::-1]) / 2
        for share in range(shares):  # blurred by its motion while the shutter is open
            turn = cv2.getRotationMatrix2D(tuple(middle), float(angle[t]), float(scale[t]))
            turn[:, 2] += center[t] - 0.5 * step * share / shares - middle
            there = cv2.warpAffine(alpha, turn, (side, side)) / shares
            moved = cv2.warpAffine(picture, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
            opacity[t] += there
            colors[t] += moved * there[..., None]
    return colors, opacity


def _bending(
    shape: tuple[int, ...], rng: np.random.Generator, count: int
) -> Callable[[NDArray[np.float32], NDArray[np.float32], int], Planes]:
    """Bends the object softly, and swings what is below a hinge."""
    height, width = shape
    soft = _curve(rng, count, 32, rng.choice([0, 0.02, 0.05]) * max(shape)).reshape(count, 4, 4, 2)
    swing = np.deg2rad(np.clip(_curve(rng, count, 1, rng.choice([0, 10, 20]))[:, 0], -60, 60))
    hinge = rng.uniform(0.3, 0.7) * height
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    below = np.clip((rows - hinge) / (0.15 * height), 0, 1)

    def bend(picture: NDArray[np.float32], alpha: NDArray[np.float32], t: int) -> Planes:
        angle = swing[t] * below
        across, down = columns - width / 2, rows - hinge
        x = width / 2 + across * np.cos(angle) - down * np.sin(angle)
        y = hinge + across * np.sin(angle) + down * np.cos(angle)
        more = cv2.resize(
            soft[t].astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        x, y = (x + more[..., 0]).astype(np.float32), (y + more[..., 1]).astype(np.float32)
        bent = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return bent, cv2.remap(alpha, x, y, cv2.INTER_LINEAR)

    return bend
