# SPDX-License-Identifier: Apache-2.0
"""The clips of an evaluation: where they lie in a folder, and their pixels at the size that is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.video.footage import VIDEO_SUFFIXES
from vinpaint.video.images import EXTENSIONS, eight_bit, list_pictures, read_picture
from vinpaint.video.reader import open_clip

DAVIS_FOLDERS = ("JPEGImages/480p", "Annotations/480p")
"""Frames and object masks in the DAVIS data set, one folder a clip in each."""

OBJECT_LEVEL = 32
"""A mask pixel marks an object from this brightness of its brightest channel on: the palette of DAVIS begins at
64, and what JPEG adds to black stays below."""

Frames = NDArray[np.uint8]  # (F, H, W, 3), red green blue
Hole = NDArray[np.bool_]  # (F, H, W), True in the hole


@dataclass(frozen=True)
class Clip:
    """A clip on disk.

    Attributes:
        name: unique in its evaluation.
        frames: a video file or a folder of pictures.
        objects: a folder with a mask of the clip's moving object for every frame, or ``None``.
    """

    name: str
    frames: Path
    objects: Path | None


def find_clips(data: str | Path) -> list[Clip]:
    """The clips in a folder, in the order of their names.

    A clip is a video file; a folder of pictures; or a folder with ``frames/`` (or one video), beside ``masks/``
    if it has object masks. The layout of DAVIS is understood too, and a folder that is itself one clip.

    Raises:
        InputError: no such folder, no clip in it, two clips of one name.
    """
    data = Path(data)
    if not data.is_dir():
        raise InputError(f"DATA: expected a folder of clips, found no folder {data}")
    images, annotations = (data / folder for folder in DAVIS_FOLDERS)
    if images.is_dir():
        found = [
            Clip(folder.name, folder, _existing(annotations / folder.name))
            for folder in _visible(images)
            if folder.is_dir()
        ]
    else:
        itself = any(_is_picture(p) or p.name in ("frames", "masks") for p in _visible(data))
        paths = [data.resolve()] if itself else _visible(data)
        found = [clip for path in paths if (clip := _clip_at(path)) is not None]
    if not found:
        raise InputError(
            f"DATA: {data} holds no clip; expected video files, folders of frames, or folders with frames/ and masks/"
        )
    names = [clip.name for clip in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"DATA: {data} holds two clips named {twice}; expected different names")
    return found


def load_frames(clip: Clip, size: tuple[int, int] | None, count: int | None) -> Frames:
    """The first ``count`` frames (all if ``None``) of a clip as uint8 (F, H, W, 3).

    Args:
        clip: where they lie.
        size: width and height to bring them to by the area filter; ``None`` keeps their own.
        count: frames at most.

    Raises:
        InputError: the clip cannot be read.
    """
    frames = []
    for frame in islice(open_clip(clip.frames, argument="DATA").frames(), count):
        rgb = eight_bit(frame.rgb)
        frames.append(rgb if size is None else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    return np.stack(frames).astype(np.uint8, copy=False)


def load_objects(clip: Clip, size: tuple[int, int], count: int) -> Hole:
    """The masks of a clip's object as bool (F, H, W), at most ``count`` frames, brought to ``size``.

    Raises:
        InputError: there are not as many masks as frames, or one cannot be read.
    """
    if clip.objects is None:
        raise ValueError(f"the clip {clip.name} has no object masks")
    paths = list_pictures(clip.objects, "DATA")
    source = open_clip(clip.frames, argument="DATA")
    frames = source.likely_frame_count
    if frames is not None and frames != len(paths):
        raise InputError(
            f"DATA: {clip.objects} holds {len(paths)} masks, but the clip {clip.name} has {frames} frames; "
            "expected one mask a frame"
        )
    shares = (
        cv2.resize(read_mask(path).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for path in paths[:count]
    )
    return np.stack([share > 0.5 for share in shares])


def read_mask(path: Path) -> Hole:
    """A mask picture as bool (H, W): ``True`` where its brightest channel is at :data:`OBJECT_LEVEL` or above."""
    picture = eight_bit(read_picture(path, "mask"))
    if picture.ndim == 3:
        picture = picture[:, :, :3].max(axis=2)
    return np.asarray(picture >= OBJECT_LEVEL)


def _clip_at(path: Path) -> Clip | None:
    if path.is_file():
        return Clip(path.stem, path, None) if path.suffix.lower() in VIDEO_SUFFIXES else None
    masks = _existing(path / "masks")
    inside = _visible(path)
    if (path / "frames").is_dir():
        return Clip(path.name, path / "frames", masks)
    videos = [p for p in inside if p.suffix.lower() in VIDEO_SUFFIXES]
    if len(videos) == 1:
        return Clip(path.name, videos[0], masks)
    if any(_is_picture(p) for p in inside):
        return Clip(path.name, path, None)
    return None


def _is_picture(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in EXTENSIONS


def _visible(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _existing(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None
