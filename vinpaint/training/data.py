# SPDX-License-Identifier: Apache-2.0
"""Training samples: short windows of shots, cropped, flipped and punched with a hole."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vinpaint.errors import InputError
from vinpaint.training.holes import random_hole

VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ogv", ".webm"}

SHORT_SIDE = 128
"""Shots are decoded to this many pixels along their shorter side."""

MAX_SPEED = 2
"""A sample may skip frames: the fastest takes every second one."""


def decode_shots(videos: str | Path, cache: str | Path, *, short_side: int = SHORT_SIDE) -> int:
    """Decode every video below ``videos`` once, cut into shots, to files that :class:`ShotDataset` reads.

    A video whose shots are all in ``cache`` already is not read again. A video that cannot be read is skipped with
    a warning that names it.

    Returns:
        Shots in ``cache``.
    """
    videos, cache = Path(videos), Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in videos.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES):
        stem = "_".join(path.relative_to(videos).parts)
        whole = cache / f"{stem}.whole"  # says that no shot of this video is missing
        if whole.exists():
            continue
        try:
            for start, shot in _shots(path, short_side):
                partial = cache / f"{stem}.partial"
                with partial.open("wb") as file:
                    np.save(file, shot)
                partial.replace(cache / f"{stem}@{start}.npy")
            whole.touch()
        except InputError as error:
            warnings.warn(f"skipped {path}: {error}", stacklevel=2)
    return len(list(cache.glob("*.npy")))


def _shots(path: Path, short_side: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """First frame and (F, h, w, 3) pixels of every shot of a video; one shot in memory at a time."""
    # Decoders are needed here alone: shots that are decoded already train without them.
    from vinpaint.video.reader import open_clip
    from vinpaint.video.shots import find_cuts

    clip = open_clip(path)
    cuts = [*find_cuts(thumbnail.image for thumbnail in clip.thumbnails()), math.inf]
    start = 0
    shot: list[NDArray[np.uint8]] = []
    for frame in clip.frames():
        if frame.index == cuts[0]:
            yield start, np.stack(shot)
            start, shot, cuts = frame.index, [], cuts[1:]
        scale = short_side / min(frame.rgb.shape[:2])
        size = (round(frame.rgb.shape[1] * scale), round(frame.rgb.shape[0] * scale))
        rgb = frame.rgb if frame.rgb.dtype == np.uint8 else (frame.rgb >> 8).astype(np.uint8)
        shot.append(np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8))
    yield start, np.stack(shot)


class ShotDataset(Dataset[tuple[Tensor, Tensor]]):
    """Random windows of decoded shots.

    Sample ``i`` depends on the seed and on ``i`` alone, so a run can stop and go on anywhere, with any
    number of workers.

    Args:
        folder: the shots, one ``.npy`` file of (F, H, W, 3) uint8 each (see :func:`decode_shots`).
        frames: frames a sample.
        size: height and width of a sample in pixels; also the smallest crop.
        length: samples an epoch.
        seed: everything random derives from it.

    Raises:
        FileNotFoundError: no shot in ``folder`` is long and large enough.
    """

    def __init__(
        self, folder: str | Path, *, frames: int, size: int, length: int, seed: int = 0
    ) -> None:
        self.frames, self.size, self.length, self.seed = frames, size, length, seed
        shots = (np.load(path, mmap_mode="r") for path in sorted(Path(folder).glob("*.npy")))
        self.shots = [s for s in shots if s.shape[0] >= frames and min(s.shape[1:3]) >= size]
        if not self.shots:
            raise FileNotFoundError(
                f"no shot of at least {frames} frames and {size} x {size} pixels in {folder}"
            )
        # A long shot is drawn more often than a short one, but not in proportion: it repeats itself.
        weight = np.sqrt([len(shot) for shot in self.shots])
        self.weight = weight / weight.sum()

    def mean(self) -> tuple[float, float, float]:
        """Mean red, green and blue of all shots in [0, 1], from a sample of their pixels."""
        pixels = [
            shot[::8, ::8, ::8].reshape(-1, 3).mean(0, dtype=np.float64) for shot in self.shots
        ]
        lengths = [len(shot) for shot in self.shots]
        red, green, blue = np.average(pixels, axis=0, weights=lengths).tolist()
        return round(red / 255, 3), round(green / 255, 3), round(blue / 255, 3)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """``(frames, mask)``: float (3, F, size, size) in [0, 1] and (1, F, size, size), 1 in the hole."""
        rng = np.random.default_rng((self.seed, index))
        shot = self.shots[rng.choice(len(self.shots), p=self.weight)]
        clip = self._augment(rng, self._window(rng, shot))
        hole = random_hole(rng, self.frames, self.size, self.size)
        frames = torch.from_numpy(clip).permute(3, 0, 1, 2).float().div_(255)
        return frames, torch.from_numpy(hole).unsqueeze(0).float()

    def _window(self, rng: np.random.Generator, shot: NDArray[np.uint8]) -> NDArray[np.uint8]:
        fastest = max(1, min(MAX_SPEED, (len(shot) - 1) // max(self.frames - 1, 1)))
        speed = int(rng.integers(1, fastest + 1))
        start = int(rng.integers(len(shot) - (self.frames - 1) * speed))
        window = shot[start : start + (self.frames - 1) * speed + 1 : speed]
        return window[::-1] if rng.random() < 0.5 else window

    def _augment(self, rng: np.random.Generator, window: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = window.shape[1:3]
        side = int(rng.integers(self.size, min(height, width) + 1))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = window[:, top : top + side, left : left + side]
        if rng.random() < 0.5:
            crop = crop[:, :, ::-1]
        order, table = rng.permutation(3) if rng.random() < 0.5 else np.arange(3), _tone_curves(rng)
        small = (np.ascontiguousarray(self._resized(frame)[..., order]) for frame in crop)
        return np.stack([cv2.LUT(frame, table) for frame in small]).astype(np.uint8)

    def _resized(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (self.size, self.size)
        out = cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_AREA)
        return np.asarray(out, np.uint8)


def _tone_curves(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random gamma and gain for each channel as a (256, 1, 3) table.

    Real footage is mostly grey; with these the colour to fill in can only be learned from around
    the hole.
    """
    level = np.linspace(0, 1, 256)[:, None]
    curves = rng.uniform(0.6, 1.0, 3) * level ** rng.uniform(0.6, 1.6, 3)
    return (255 * curves).round().astype(np.uint8)[:, None, :]
