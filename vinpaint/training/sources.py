# SPDX-License-Identifier: Apache-2.0
"""Where footage lies: videos, folders of frames, DAVIS, YouTube-VOS, photographs."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vinpaint.errors import InputError
from vinpaint.video.footage import VIDEO_SUFFIXES
from vinpaint.video.images import EXTENSIONS

UNREADABLE = {
    ".seq": "a .seq file, as of Caltech Pedestrian, is not read; make a video of its JPEG frames: "
    "ffmpeg -f mjpeg -i FILE.seq -c copy FILE.avi"
}
"""Footage that is not read, by suffix, and what to do about it."""

NO_FOOTAGE = {"Annotations", "Annotations_unsupervised"}
"""Folders of DAVIS and YouTube-VOS with masks: they look like folders of frames."""

Box = tuple[float, float, float, float]
"""Left, top, width, height in pixels."""


@dataclass(frozen=True)
class Source:
    """One clip to be: a video file, a folder of frames, or a photograph.

    Attributes:
        name: where it lies below its folder, whatever else there is and wherever that folder is.
            It names its files in the cache and says on which side of the split it is, so sources
            of one name in several folders are on the same side.
        path: the file or folder.
        kind: ``"clip"`` is decoded, ``"photo"`` is filmed by the synthetic camera.
        number: 1, for the second source of the same name 2, and so on, in the order of the folders;
            keeps them apart in the cache.
        box: what to cut out, of ``crop = "boxes"``.
    """

    name: str
    path: Path
    kind: Literal["clip", "photo"]
    number: int = 1
    box: Box | None = None

    def stamp(self) -> str:
        """Changes when the footage does: names, sizes and times of its files."""
        if self.path.is_dir():  # not by way of Path: data sets have 100000s of frames
            with os.scandir(self.path) as files:
                frames = [f for f in files if f.name.lower().endswith(EXTENSIONS) and f.is_file()]
            stats = [(frame.name, frame.stat()) for frame in frames]
        else:
            stats = [(self.path.name, self.path.stat())]
        facts = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def find_sources(
    folders: Sequence[str], photos: Sequence[str]
) -> tuple[list[Source], dict[Path, str]]:
    """Everything to train on below ``folders`` (clips) and ``photos`` (pictures, one by one).

    Below a folder in the layout of YouTube-VOS that is ``train/JPEGImages``, in the layout of DAVIS
    ``JPEGImages/480p``; otherwise videos and folders of frames at any depth. A folder ``masks``
    beside a folder ``frames`` or a video is left out: it is what clips are evaluated with.

    Returns:
        The sources in order of their names, and footage that cannot be read, with the reason.

    Raises:
        InputError: a folder is missing or holds no footage.
    """
    found: list[tuple[str, Path, Literal["clip", "photo"]]] = []
    unreadable: dict[Path, str] = {}
    for folder in map(Path, folders):
        _check_folder(folder, "folders")
        count = len(found)
        for path in _clips(_footage_root(folder)):
            if path.suffix.lower() in UNREADABLE:
                unreadable[path] = UNREADABLE[path.suffix.lower()]
            else:
                found.append((_name(path, folder), path, "clip"))
        if len(found) == count and not unreadable:
            raise InputError(
                f"folders: {folder} holds no footage; expected videos "
                f"({', '.join(sorted(VIDEO_SUFFIXES))}) or folders of {', '.join(EXTENSIONS)} frames"
            )
    for folder in map(Path, photos):
        _check_folder(folder, "photos")
        # Folders of wallpapers have one picture under many names: links to it are left out.
        pictures = [p for p in sorted(folder.rglob("*")) if _is_picture(p) and not p.is_symlink()]
        if not pictures:
            raise InputError(
                f"photos: {folder} holds no pictures; expected {', '.join(EXTENSIONS)} files"
            )
        found += [(_name(path, folder), path, "photo") for path in pictures]
    taken: Counter[str] = Counter()
    sources = []
    for name, path, kind in found:
        taken[name] += 1
        sources.append(Source(name, path, kind, taken[name]))
    return sorted(sources, key=lambda source: (source.name, source.number)), unreadable


def read_boxes(path: str | Path) -> dict[str, Box]:
    """Boxes from a CSV file with the columns ``clip, x, y, width, height`` in pixels.

    ``clip`` is a clip's file or folder name. Several rows of one clip, such as one for each frame,
    give the box around them all.

    Raises:
        InputError: no such file, or a row that is no box.
    """
    edges: dict[str, Box] = {}
    try:
        with Path(path).open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    x, y, width, height = (float(row[key]) for key in ("x", "y", "width", "height"))
                    clip = row["clip"]
                except (KeyError, TypeError, ValueError):
                    raise InputError(
                        f"boxes: line {number} of {path} is no box; expected the columns "
                        f"clip, x, y, width, height, got {row}"
                    ) from None
                left, top, right, bottom = edges.get(clip, (x, y, x + width, y + height))
                edges[clip] = (
                    min(left, x),
                    min(top, y),
                    max(right, x + width),
                    max(bottom, y + height),
                )
    except OSError as error:
        raise InputError(f"boxes: {path} cannot be read ({error.strerror})") from error
    return {clip: (x, y, right - x, bottom - y) for clip, (x, y, right, bottom) in edges.items()}


def _check_folder(folder: Path, argument: str) -> None:
    if not folder.is_dir():
        raise InputError(f"{argument}: no such folder: {folder}")


def _footage_root(folder: Path) -> Path:
    for root in (folder / "train" / "JPEGImages", folder / "JPEGImages"):
        if root.is_dir():
            return root / "480p" if (root / "480p").is_dir() else root
    return folder


def _clips(root: Path) -> Iterator[Path]:
    """Videos and folders with two or more pictures, at any depth, that are no masks."""
    for parent, folders, files in os.walk(root, followlinks=True):
        shown = [Path(parent, name) for name in sorted(files) if name[0] != "."]
        videos = [p for p in shown if p.suffix.lower() in VIDEO_SUFFIXES | UNREADABLE.keys()]
        masks = NO_FOOTAGE | ({"masks"} if videos or "frames" in folders else set())
        folders[:] = sorted(name for name in folders if name not in masks and name[0] != ".")
        if sum(map(_is_picture, shown)) > 1:
            yield Path(parent)
        yield from videos


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.name[0] != "."


def _name(path: Path, folder: Path) -> str:
    name = "_".join(path.relative_to(folder).parts) or folder.resolve().name
    return name.replace("@", "_")  # in the cache, "@" ends the name
