# SPDX-License-Identifier: Apache-2.0
"""Training samples: footage decoded once into shots, windows of them, and a hole in each."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from vinpaint.errors import InputError, InputWarning
from vinpaint.painting import unknown_bytes
from vinpaint.propagation import Propagator
from vinpaint.training.augment import AugmentConfig, Pixels, random_window
from vinpaint.training.cache import (
    Crop,
    Decoding,
    Shot,
    decode_all,
    find_decoded,
    loose_shots,
    only_writer,
)
from vinpaint.training.camera import CameraConfig
from vinpaint.training.holes import Hole, HoleConfig, check_masks, random_hole
from vinpaint.training.sources import Source, find_sources, read_boxes
from vinpaint.video.windows import make_plan

NAMED = 5
"""Unusable files that a warning names; the result names all."""


@dataclass(frozen=True)
class DataConfig:
    """What to train on, and how footage becomes samples.

    Attributes:
        cache: folder that the decoded shots are kept in. Without ``folders`` and ``photos`` all
            ``.npy`` files in it are the shots, (F, H, W, 3) uint8 RGB each.
        folders: footage: videos and folders of frames at any depth, or a data set in the layout of
            DAVIS or YouTube-VOS.
        photos: folders of photographs, which a synthetic camera films.
        short_side: shots are decoded to this many pixels along their shorter side.
        crop: what is cut out first: ``"none"``; ``"center-square"``, the paper's for Caltech
            Pedestrian; ``"boxes"``, a square around each clip's box, the paper's for faces.
        boxes: CSV file with the columns ``clip, x, y, width, height`` in pixels, for
            ``crop = "boxes"``. Faces are not looked for: the boxes are another program's.
        box_margin: how much larger than its box a square is, as a share of the box's longer side.
        validation_share: share of the clips that are kept for validation; the paper's 1 in 6. Which
            clips, only their names below their folder say, so a clip stays where it is when others
            or other folders are added. If that would be all clips, none is kept.
        decoders: processes that decode; ``"none"``: one a core.
        augment: what is done to a window at random; not in validation.
        holes: which holes are cut.
        carried: share of the samples into whose hole propagation carries what the sample's other frames show, as in
            use; about 15 ms a frame of 96 x 96 on one core.
        camera: how photographs are filmed.
    """

    cache: str
    folders: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    short_side: int = 128
    crop: Crop = "none"
    boxes: str | None = None
    box_margin: float = 0.25
    validation_share: float = 1 / 6
    decoders: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    holes: HoleConfig = field(default_factory=HoleConfig)
    carried: float = 0.0
    camera: CameraConfig = field(default_factory=CameraConfig)

    def __post_init__(self) -> None:
        if self.short_side < 8:
            raise InputError(f"short_side: expected at least 8 pixels, got {self.short_side}")
        if self.crop not in ("none", "center-square", "boxes"):
            raise InputError(
                f"crop: expected 'none', 'center-square' or 'boxes', got {self.crop!r}"
            )
        if (self.crop == "boxes") != (self.boxes is not None):
            raise InputError(
                "boxes: expected a CSV file together with crop = 'boxes', and only then, "
                f"got boxes={self.boxes!r} and crop={self.crop!r}"
            )
        if not 0 <= self.validation_share < 1:
            raise InputError(
                "validation_share: expected a share from 0 to less than 1, "
                f"got {self.validation_share}"
            )
        if not 0 <= self.carried <= 1:
            raise InputError(f"carried: expected a share from 0 to 1, got {self.carried}")
        if self.box_margin < 0:
            raise InputError(f"box_margin: expected 0 or more, got {self.box_margin}")
        if self.decoders is not None and self.decoders < 1:
            raise InputError(f"decoders: expected at least 1, got {self.decoders}")

    def decoding(self) -> Decoding:
        """The part of the options that the shots in the cache depend on."""
        return Decoding(self.short_side, self.crop, self.box_margin, self.camera)


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare_data` found.

    Attributes:
        folder: where the shots are.
        sources: clips and photographs that can be used.
        decoded: those of them that were not in the cache before.
        shots: in the cache.
        frames: of all shots.
        skipped: what cannot be used, and why.
    """

    folder: Path
    sources: int
    decoded: int
    shots: int
    frames: int
    skipped: dict[Path, str]


def prepare_data(
    config: DataConfig, *, progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """Decode all footage into the cache, once: what is there and has not changed is not read again.

    That goes for footage that could not be decoded too. A run that was stopped goes on where it
    was. Footage and masks (``config.holes.masks``) that cannot be used are skipped, with one
    warning each that names them.

    Args:
        config: where the footage is and how it is decoded.
        progress: called with sources done and sources in all.

    Raises:
        InputError: a folder is missing or empty, or none of the footage or the masks can be used.
    """
    masks = _check_masks(config.holes)
    if not config.folders and not config.photos:
        shots = loose_shots(_existing(config.cache))
        clips = len({shot.source for shot in shots})
        return _prepared(Path(config.cache), clips, shots, decoded=0, skipped=masks)
    sources, skipped = _sources(config)
    decoding = config.decoding()
    folder = decoding.folder(config.cache)
    with only_writer(folder):
        missing = []
        for source in sources:
            known = find_decoded(folder, source, decoding)
            if known is None:
                missing.append(source)
            elif known.failure is not None:
                skipped[source.path] = known.failure
        done = len(sources) - len(missing)
        decoded = 0
        for source, reason in decode_all(folder, missing, decoding, config.decoders):
            done += 1
            if reason is None:
                decoded += 1
            else:
                skipped[source.path] = reason
            if progress is not None:
                progress(done, len(sources))
    found = _found(folder, sources, decoding)
    if skipped:
        message = _unusable(f"{len(skipped)} of {len(skipped) + len(found)} clips", skipped)
        if not found:
            raise InputError(message)
        warnings.warn(message, InputWarning, stacklevel=2)
    return _prepared(folder, len(found), [*chain(*found)], decoded, masks | skipped)


class ClipDataset(Dataset[tuple[Tensor, ...]]):
    """Random windows of decoded shots, each with a hole.

    Sample ``i`` depends on the seed and on ``i`` alone, so a run can stop and go on anywhere, with
    any number of workers. A data set stands for the samples from ``start`` to ``stop``; a sampler
    draws from ``indices``.

    Args:
        config: the options; :func:`prepare_data` has filled ``config.cache``.
        frames: frames a sample.
        size: height and width of a sample in pixels; also the smallest crop.
        start: number of the first sample.
        stop: number after that of the last sample.
        seed: everything random derives from it.
        split: ``"train"``, or ``"validation"``: other clips, no augmentation.

    Raises:
        InputError: no footage, it is not in the cache, or no shot is long and large enough.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        frames: int,
        size: int,
        start: int = 0,
        stop: int,
        seed: int = 0,
        split: Literal["train", "validation"] = "train",
    ) -> None:
        if split == "validation":
            config = replace(config, augment=AugmentConfig(enabled=False))
        self.config, self.frames, self.size, self.seed = config, frames, size, seed
        self.indices = range(start, stop)
        self._propagator: Propagator | None = None  # in each worker its own
        found = _all_shots(config)
        held_out = _held_out(found, config)
        shots = [s for s in found if (s.source in held_out) == (split == "validation")]
        self.shots = [s for s in shots if s.frames >= frames and min(s.height, s.width) >= size]
        if not self.shots:
            longest = max((shot.frames for shot in shots), default=0)
            largest = max((min(shot.height, shot.width) for shot in shots), default=0)
            if split == "validation" and found and not shots:
                raise InputError(
                    f"none of {len({shot.source for shot in found})} clips fell into the "
                    f"validation_share of {config.validation_share:.3g}, which goes by their names"
                )
            raise InputError(
                f"no {split} shot of at least {frames} frames and {size} x {size} pixels in "
                f"{config.cache}: got {len(shots)} of at most {longest} frames and {largest} "
                "pixels along the shorter side"
                + ("" if found else "; prepare_data decodes the footage")
                + (f" (short_side is {config.short_side})" if size > config.short_side else "")
            )
        # A long shot is drawn more often than a short one, not in proportion: it repeats itself.
        self._ends = np.cumsum(np.sqrt([shot.frames for shot in self.shots]))

    def mean(self) -> tuple[float, float, float]:
        """Mean red, green and blue of all shots in [0, 1], from a sample of their pixels."""
        lengths = [shot.frames for shot in self.shots]
        means = np.average([shot.mean for shot in self.shots], axis=0, weights=lengths)
        red, green, blue = (means / 255).round(3).tolist()
        return red, green, blue

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """``(frames, mask)``: uint8 (3, F, size, size) and bool (1, F, size, size).

        The mask is ``True`` in the hole. Frames are 0..255: a quarter of the bytes of floats to
        collate, to pass between processes and to copy to the device, which divides by 255.

        With ``config.carried`` above 0, in every sample, ``(frames, mask, given, unknown)``: ``given``, like ``frames``,
        has what was carried in the hole, and ``unknown``, uint8 like ``mask``, is 255 where nothing was, 0 outside the
        hole, between the share of a carried pixel that is not believed.
        """
        if index not in self.indices:
            raise IndexError(f"sample {index} is not in {self.indices}")
        if get_worker_info() is not None:
            cv2.setNumThreads(0)  # one worker, one core
        rng = np.random.default_rng((self.seed, index))
        drawn = np.searchsorted(self._ends, rng.random() * self._ends[-1], side="right")
        # Opened for each sample: it takes less time than a crop, and keeps no file open.
        pixels = np.load(self.shots[drawn].path, mmap_mode="r")
        window = random_window(rng, pixels, self.frames, self.size, self.config.augment)
        hole = random_hole(rng, self.frames, self.size, self.size, self.config.holes)
        sample = torch.from_numpy(window), torch.from_numpy(hole).unsqueeze(0)
        if self.config.carried == 0:
            return sample
        if rng.random() >= self.config.carried:
            return *sample, sample[0], sample[1].to(torch.uint8) * 255
        if self._propagator is None:
            self._propagator = Propagator()
        return *sample, *_carry(self._propagator, window, hole)


def _carry(propagator: Propagator, window: Pixels, hole: Hole) -> tuple[Tensor, Tensor]:
    """A window (3, F, H, W) with what propagation carries into its hole (F, H, W), and what stays unknown (1, F, H, W)."""
    masks = hole.view(np.uint8)
    black = np.where(hole, 0, window).transpose(1, 2, 3, 0)
    carried = [*propagator(zip(black, masks, strict=True), make_plan(masks, len(masks)))]
    given = np.stack([image for image, _, _ in carried], axis=1)  # (H, F, W, 3)
    unknown = torch.from_numpy(1 - np.stack([confidence for _, _, confidence in carried]))
    pixels = np.ascontiguousarray(given.transpose(3, 1, 0, 2))
    return torch.from_numpy(pixels), unknown_bytes(unknown).unsqueeze(0)


def is_validation(source: str, config: DataConfig) -> bool:
    """Whether a clip is kept for validation; its name below its folder alone decides."""
    number = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "big")
    return number / 2**64 < config.validation_share


def _held_out(shots: list[Shot], config: DataConfig) -> set[str]:
    """The clips for validation; none if they would be all there is."""
    clips = {shot.source for shot in shots}
    held_out = {clip for clip in clips if is_validation(clip, config)}
    return held_out if held_out != clips else set()


def _all_shots(config: DataConfig) -> list[Shot]:
    if not config.folders and not config.photos:
        return loose_shots(_existing(config.cache))
    decoding = config.decoding()
    return [*chain(*_found(decoding.folder(config.cache), _sources(config)[0], decoding))]


def _found(folder: Path, sources: list[Source], decoding: Decoding) -> list[list[Shot]]:
    """The shots of every source that has some."""
    known = (find_decoded(folder, source, decoding) for source in sources)
    return [decoded.shots for decoded in known if decoded is not None and decoded.shots]


def _existing(cache: str) -> Path:
    if not Path(cache).is_dir():
        raise InputError(f"cache: no such folder: {cache}")
    return Path(cache)


def _sources(config: DataConfig) -> tuple[list[Source], dict[Path, str]]:
    sources, unreadable = find_sources(config.folders, config.photos)
    if config.boxes is not None:
        boxes = read_boxes(config.boxes)
        sources = [replace(source, box=boxes.get(source.path.name)) for source in sources]
    return sources, unreadable


def _check_masks(config: HoleConfig) -> dict[Path, str]:
    """Masks that cannot be used, said here: a worker that meets one draws another."""
    if not config.shares.get("mask"):
        return {}
    assert config.masks is not None, "checked by HoleConfig"
    unusable = check_masks(config.masks)
    if unusable:
        warnings.warn(
            _unusable(f"{len(unusable)} of the masks", unusable), InputWarning, stacklevel=3
        )
    return unusable


def _unusable(which: str, skipped: dict[Path, str]) -> str:
    reasons = list(skipped.items())[:NAMED]
    named = "; ".join(why if str(path) in why else f"{path}: {why}" for path, why in reasons)
    more = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"{which} cannot be used: {named}{more}"


def _prepared(
    folder: Path, sources: int, shots: list[Shot], decoded: int, skipped: dict[Path, str]
) -> Prepared:
    return Prepared(folder, sources, decoded, len(shots), sum(s.frames for s in shots), skipped)
