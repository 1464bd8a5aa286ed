# SPDX-License-Identifier: Apache-2.0
"""What one visitor works on: a clip, its hole, what was filled. Knows nothing of the page."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.files import Report
from vinpaint.masking import MaskSources, make_mask
from vinpaint.masking.making import NoLogoError, open_sources
from vinpaint.video.atomic import remove
from vinpaint.video.images import EXTENSIONS, eight_bit, write_png
from vinpaint.video.masks import Stamp, open_mask, parse_box, parse_span
from vinpaint.video.preview import marked
from vinpaint.video.reader import Clip, open_clip
from vinpaint.web.frames import FrameStore
from vinpaint.web.jobs import Told
from vinpaint.web.worker import Filler, Networks

Kind = Literal["box", "paint", "follow", "mask", "boxes", "subtitles"]
Picture = NDArray[np.uint8]

TRIED_FRAMES = 16
"""Frames that are filled for a first look, around the one that is shown."""

LARGEST_TABLE = 1 << 20
"""Bytes of a file of boxes or subtitles: tens of thousands of lines."""

MOST_PATCHES = 100
"""Boxes from one picture of paint."""

FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif,mxf,nut,ivf,srt,webvtt,ass"
"""FFmpeg's demuxers for what visitors bring. Not among them: playlists, which name other files of the server."""

VIDEO = "Filled video"
"""What a filled clip's first file is called."""

CONTAINERS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
"""What is written under the input's own suffix; anything else becomes .mp4."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may bring.

    Attributes:
        frames: of a clip.
        pixels: of a frame.
        bytes: of all files of a visitor.
    """

    frames: int = 7500
    pixels: int = 4096 * 2304
    bytes: int = 4 << 30


@dataclass(frozen=True)
class Part:
    """A part of the hole.

    Attributes:
        kind: the option of ``vinpaint mask`` that it is.
        value: what that option takes.
        label: what the page calls it.
    """

    kind: Kind
    value: str
    label: str


@dataclass(frozen=True)
class Filled:
    """A clip that was filled.

    Attributes:
        files: by what they are, the video first.
        frames: of the video, to look at.
        first: the first of them with a hole.
        report: how long it took.
        warnings: what is odd about the clip or its hole.
        command: that does the same.
    """

    files: Mapping[str, Path]
    frames: FrameStore
    first: int
    report: Report
    warnings: list[str]
    command: str


@dataclass(frozen=True)
class Tried:
    """Some frames that were filled for a first look, on disk.

    Attributes:
        path: of the pictures before and after, uint8 (2, F, h, w, 3), nothing else.
        frames: their numbers in the clip.
        size: their width and height.
    """

    path: Path
    frames: range
    size: tuple[int, int]

    def at(self, index: int) -> tuple[Picture, Picture]:
        """A frame, or the nearest that was tried, before and after."""
        position = min(max(index, self.frames.start), self.frames.stop - 1) - self.frames.start
        shape = (2, len(self.frames), *self.size[::-1], 3)
        before, after = np.memmap(self.path, np.uint8, "r", shape=shape)[:, position]
        return np.array(before), np.array(after)


class Project:
    """A clip and its hole, in a folder of its own.

    Args:
        folder: for all files; made, and emptied for another clip.
        limits: of the clip.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self._made = 0
        folder.mkdir(mode=0o700)
        self._begin(self._new_home())

    def _new_home(self) -> Path:
        """A folder for one clip and all that belongs to it."""
        home = self.new_file("clip", "", self.folder)
        home.mkdir()
        return home

    def _begin(self, home: Path) -> None:
        """Start anew, without a clip."""
        self.home = home
        self.clip: Clip | None = None
        self.frames: FrameStore | None = None
        self.allow_truncated = False
        self.parts: list[Part] = []
        self.left_out: set[str] = set()
        self.filled: Filled | None = None
        self.tried: Tried | None = None
        self._painted: tuple[tuple[Any, ...], Part] | None = None
        self._stores: dict[tuple[str, ...], FrameStore] = {}
        self._followed: dict[tuple[str, ...], Path] = {}
        self._masks: dict[tuple[str, ...], Path] = {}

    # --- the clip

    def load(self, path: Path, told: Told, *, allow_truncated: bool = False) -> None:
        """Take a file that :meth:`receive` brought as the clip, in place of an earlier one and all that belongs to it.

        Raises:
            InputError: it is no video, or more than the limits allow; the earlier clip stays.
        """
        home = self._new_home()
        with _removed_on_failure(path, home):
            path = path.rename(home / path.name)
            refuse_playlists(path)
            clip = open_clip(path, allow_truncated=allow_truncated, argument="video")
            self._check(clip.info.width * clip.info.height, clip.likely_frame_count or 0)

            def counted(what: str, done: int, total: int) -> None:
                self._check(0, done)
                told(what, done, total)

            frames = FrameStore(home / "frames", clip, counted, "Reading")
        old = self.home
        self._begin(home)
        self.clip, self.frames, self.allow_truncated = clip, frames, allow_truncated
        shutil.rmtree(old)

    def _check(self, pixels: int, frames: int) -> None:
        if frames > self.limits.frames:
            raise InputError(
                f"This video is too long: at most {self.limits.frames:,} frames are taken here. Cut it into pieces, "
                "or use `vinpaint inpaint` on the command line, which takes any length."
            )
        if pixels > self.limits.pixels:
            raise InputError(
                f"The frames of this video are too large: at most {self.limits.pixels / 1e6:.1f} million pixels are "
                "taken here. Make it smaller, or use `vinpaint inpaint` on the command line."
            )

    def check_room(self) -> None:
        """Raise InputError if the files here are more than the limits allow."""
        held = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if held > self.limits.bytes:
            raise InputError(
                f"Your files here take {held >> 20} MB, more than {self.limits.bytes >> 20}: drop the video anew, which "
                "deletes what belongs to it."
            )

    def receive(self, upload: Path) -> Path:
        """Bring an uploaded file here, under its own name."""
        place = self.new_file("upload", "", self.home)
        place.mkdir()
        path = place / upload.name
        os.link(upload, path)  # no second copy: one file system
        return path

    def new_file(self, stem: str, suffix: str, folder: Path | None = None) -> Path:
        """A path that has not been given before; in the clip's folder, or in another."""
        self._made += 1
        return (folder or self.home) / f"{stem}-{self._made}{suffix}"

    def need_clip(self) -> tuple[Clip, FrameStore]:
        """The clip and its frames.

        Raises:
            InputError: there is none yet.
        """
        if self.clip is None or self.frames is None:
            raise InputError("There is no video yet: drop one on the page first.")
        return self.clip, self.frames

    def about(self) -> str:
        """The clip in a line."""
        clip, frames = self.need_clip()
        info = clip.info
        return (
            f"{info.path.name}: {info.width} x {info.height}, {len(frames):,} frames, {float(info.rate):.5g} frames/s, "
            f"{frames.times[-1] + 1 / info.rate:.1f} s"
        )

    # --- the hole

    @property
    def chosen(self) -> list[Part]:
        """The parts that count: all whose label is not in ``left_out``."""
        return [part for part in self.parts if part.label not in self.left_out]

    def add_painted(
        self, painted: Picture, index: int, *, how: str, box: bool, when: str
    ) -> Part | None:
        """Add what was painted on a frame.

        Args:
            painted: (h, w), nonzero where; of any size.
            index: the frame.
            how: ``"always"``, ``"span"``: in the frames of ``when`` only, or ``"follow"``.
            box: take the box around each patch of paint for it.
            when: START-END, as ``--paint`` takes it.

        Returns:
            What was added last; ``None`` if nothing was painted.

        Raises:
            InputError: a span that is malformed or past the end.
        """
        clip, _ = self.need_clip()
        if not painted.any():
            return None
        if how == "span":
            self._check_span(when)
        size = (clip.info.width, clip.info.height)
        mask = cv2.resize(
            (painted > 0).astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR
        )
        mask = np.where(mask >= 100, np.uint8(255), np.uint8(0))  # a single pixel of paint stays
        if not mask.any():
            return None
        stretch = f"@{when.strip()}" if how == "span" else ""
        again = (index, how, stretch, box, mask.tobytes())
        if self._painted is not None and self._painted[0] == again:
            return self._painted[1]  # the page may hand over the same paint twice
        part = self._add_mask(mask, index, how, box, stretch)
        self._painted = again, part
        return part

    def _add_mask(self, mask: Picture, index: int, how: str, box: bool, stretch: str) -> Part:
        if box:
            mask, texts = _boxes(mask)
            if len(texts) > MOST_PATCHES:
                raise InputError(
                    f"{len(texts)} patches of paint are too many for boxes: at most {MOST_PATCHES}, or take the paint as it is."
                )
            if how != "follow":
                return [self.add_box(text + stretch) for text in texts][-1]
        path = self.new_file("painted", ".png")
        write_png(path, mask)
        count = 1 + sum(part.kind in ("paint", "follow") for part in self.parts)
        if how == "follow":
            part = Part("follow", f"{path}@{index}", f"{count}: followed from frame {index}")
        else:
            times = f", {stretch[1:]}" if stretch else ", whole video"
            part = Part("paint", f"{path}{stretch}", f"{count}: painted on frame {index}{times}")
        self.parts.append(part)
        return part

    def add_box(self, text: str) -> Part:
        """Add a box, as ``--box`` takes it.

        Raises:
            InputError: it is malformed, not wholly inside the frame, or past the end.
        """
        clip, _ = self.need_clip()
        box = parse_box(text)
        box.check_inside(clip.info.width, clip.info.height)
        if "@" in text:
            self._check_span(text.partition("@")[2])
        part = Part("box", text, f"box {text}")
        if part not in self.parts:
            self.parts.append(part)
        return part

    def add_file(self, path: Path, told: Told) -> Part:
        """Add what :meth:`receive` brought: a mask (a picture or a video), boxes (CSV) or the times of subtitles, by the file's suffix.

        Raises:
            InputError: the file cannot be read as what it is, or does not fit the clip.
        """
        clip, _ = self.need_clip()
        suffix = path.suffix.lower()
        kind: Kind = "mask"
        if suffix == ".csv":
            kind = "boxes"
        elif suffix in (".srt", ".vtt", ".ass", ".ssa"):
            kind = "subtitles"
        part = Part(kind, str(path), f"{path.name}")
        with _removed_on_failure(path):
            if kind != "mask" and path.stat().st_size > LARGEST_TABLE:
                raise InputError(
                    f"{path.name} is larger than {LARGEST_TABLE >> 20} MB; expected fewer lines."
                )
            if kind != "boxes" and suffix not in EXTENSIONS:
                refuse_playlists(path)
            if kind == "mask" and suffix not in EXTENSIONS:
                open_mask(path, clip)
                self._store((str(path),), path, told)
            else:
                open_sources(_sources([part]), clip)
        self.parts = [old for old in self.parts if kind == "mask" or old.kind != kind] + [part]
        return part

    def find_logo(self, told: Told) -> Part:
        """Look for a logo and add it as if painted.

        Raises:
            InputError: none was found.
        """
        clip, _ = self.need_clip()
        path = self.new_file("logo", ".png")
        try:
            make_mask(
                clip.info.path,
                path,
                MaskSources(logo=True),
                allow_truncated=self.allow_truncated,
                progress=_named(told, {"logo": "Looking for a logo"}),
            )
        except NoLogoError as error:
            raise InputError(
                "No logo was found: nothing keeps its place while the picture around it changes. Paint over it instead."
            ) from error
        part = Part("paint", str(path), "logo that was found")
        self.parts = [old for old in self.parts if old.label != part.label] + [part]
        return part

    def follow(self, told: Told) -> None:
        """Have what is to be followed at hand, as :meth:`hole_at` and :meth:`fill` want it."""
        clip, _ = self.need_clip()
        key = _followed_key(self.chosen)
        if not key or key in self._followed:
            return
        path = self.new_file("followed", ".mkv")
        names = {"frames": "Reading", "follow": "Following", "mask": "Drawing the hole"}
        make_mask(
            clip.info.path,
            path,
            MaskSources(follow=key),
            allow_truncated=self.allow_truncated,
            progress=_named(told, names),
        )
        with _removed_on_failure(path):
            self._store(key, path, told)
        self._followed[key] = path

    def leave_out_unfollowed(self) -> None:
        """Have no part count that is to be followed and was not."""
        if _followed_key(self.chosen) not in self._followed:
            self.left_out |= {part.label for part in self.chosen if part.kind == "follow"}

    def _store(self, key: tuple[str, ...], path: Path, told: Told) -> None:
        _, frames = self.need_clip()
        file = self.new_file("mask", ".jpg")
        with _removed_on_failure(file):
            store = FrameStore(file, open_clip(path, argument="mask"), told, "Reading the mask")
            if len(store) != len(frames):
                raise InputError(
                    f"The mask has {len(store)} frames, but the video has {len(frames)}; expected one a frame."
                )
        self._stores[key] = store

    def _check_span(self, text: str) -> None:
        _, frames = self.need_clip()
        span = parse_span(text.strip(), argument="frames")
        if not any(span.covers(Stamp(index, time)) for index, time in enumerate(frames.times)):
            raise InputError(
                f"{text} is past the end: the video has {len(frames)} frames (0 to {len(frames) - 1}), "
                f"{frames.times[-1]:.2f} s."
            )

    def hole_at(self, index: int) -> NDArray[np.bool_]:
        """The hole of a frame at the size it is shown in, (h, w); what has not been followed yet is not in it."""
        clip, frames = self.need_clip()
        parts = self.chosen
        stored = [_followed_key(parts)] + [
            (part.value,) for part in parts if (part.value,) in self._stores
        ]
        hole = np.zeros(frames.size[::-1], np.bool_)
        for key in stored:
            if key in self._stores:
                hole |= self._stores[key].at(index)[..., 0] >= 128
        given = [
            part for part in parts if part.kind != "follow" and (part.value,) not in self._stores
        ]
        for grays in open_sources(_sources(given), clip):
            gray = grays.at(Stamp(index, frames.times[index]))
            if gray is not None:
                hole |= cv2.resize(gray, frames.size, interpolation=cv2.INTER_AREA) >= 128
        return hole

    def shown(self, index: int) -> Picture:
        """A frame with its hole marked, uint8 (h, w, 3)."""
        _, frames = self.need_clip()
        hole = self.hole_at(index)
        return marked(frames.at(index), hole) if hole.any() else frames.at(index)

    # --- what is done with both

    def try_frames(
        self,
        index: int,
        filler: Filler,
        networks: Networks,
        told: Told,
        options: Mapping[str, Any],
    ) -> Tried:
        """Fill some frames around one, for a first look. Arguments and exceptions are those of :meth:`fill`."""
        clip, frames = self.need_clip()
        given = {name: options[name] for name in ("dilate", "invert", "feather")}
        masks = open_mask(
            self._mask(told),
            clip,
            resize=options["mask_resize"],
            allow_truncated=self.allow_truncated,
            **given,
        )
        first = max(0, min(index - TRIED_FRAMES // 2, len(frames) - TRIED_FRAMES))
        stop = min(len(frames), first + TRIED_FRAMES)
        pairs = []
        for frame, hole in islice(masks.pair(clip.frames()), stop):
            told("Going there", min(frame.index, first), first)
            if frame.index >= first:
                pairs.append((eight_bit(frame.rgb), hole))
        if not any(hole.any() for _, hole in pairs):
            raise InputError(
                f"There is no hole in frames {first} to {stop - 1}: go to a frame that has one, or draw one here."
            )
        before = np.stack([picture for picture, _ in pairs])
        holes = np.stack([hole for _, hole in pairs])
        after = filler.pictures(told, networks, before, holes)
        path = self.new_file("tried", "")
        small = np.stack([_small(pictures, frames.size) for pictures in (before, after)])
        with _removed_on_failure(path):
            path.write_bytes(small.tobytes())
        tried = Tried(path, range(first, stop), frames.size)
        self._replace_tried(tried)
        return tried

    def _replace_tried(self, tried: Tried | None) -> None:
        old, self.tried = self.tried, tried
        if old is not None:
            old.path.unlink()

    def fill(
        self,
        filler: Filler,
        networks: Networks,
        told: Told,
        options: Mapping[str, Any],
        *,
        suffix: str | None = None,
        preview: bool = False,
        compare: bool = False,
        flags: Sequence[str] = (),
    ) -> Filled:
        """Fill the clip; files of an earlier fill are removed once it has succeeded.

        Args:
            filler: who fills.
            networks: with which.
            told: hears how far it is.
            options: of :func:`vinpaint.inpaint_video`, but for those below.
            suffix: of the file; ``None``: the input's.
            preview: also write a contact sheet.
            compare: also write input and output side by side.
            flags: the options as the command line takes them, for ``Filled.command``.

        Raises:
            InputError: no clip, no hole, or what :func:`vinpaint.inpaint_video` refuses.
            OSError: the disk is full.
            RuntimeError: the process that fills has ended.
        """
        clip, _ = self.need_clip()
        source = clip.info.path
        own = source.suffix.lower() if source.suffix.lower() in CONTAINERS else ".mp4"
        mask = self._mask(told)
        folder = self.new_file("filled", "")
        folder.mkdir()
        files = {VIDEO: folder / f"{source.stem}-filled{suffix or own}"}
        if preview:
            files["Contact sheet"] = folder / f"{source.stem}-preview.png"
        if compare:
            files["Side by side"] = folder / f"{source.stem}-compare.mp4"
        boxes = mask if isinstance(mask, list) else []
        with _removed_on_failure(folder):
            report, warnings = filler.video(
                told,
                networks,
                {
                    **options,
                    "input": source,
                    "output": files[VIDEO],
                    "mask": None if isinstance(mask, list) else mask,
                    "boxes": boxes,
                    "preview": files.get("Contact sheet"),
                    "compare": files.get("Side by side"),
                    "allow_truncated": self.allow_truncated,
                },
            )
            filled = open_clip(files[VIDEO])
            frames = FrameStore(folder / "frames", filled, told, "Reading the result")
        hole = [f"--box={text}" for text in boxes]
        if not isinstance(mask, list):
            files["Mask"] = mask
            hole = ["--mask", mask.name]
        command = ["vinpaint", "inpaint", source.name, *hole, *flags, "-o", files[VIDEO].name]
        new = Filled(files, frames, report.first_hole or 0, report, warnings, shlex.join(command))
        old, self.filled = self.filled, new
        if old is not None:
            shutil.rmtree(old.files[VIDEO].parent)
        self._replace_tried(None)
        return new

    def _mask(self, told: Told) -> list[str] | Path:
        """The hole as :func:`vinpaint.inpaint_video` takes it: boxes, a picture or a video."""
        clip, _ = self.need_clip()
        parts = self.chosen
        if not parts:
            raise InputError(
                "There is no hole yet: paint over what should go, or give a box, then try again."
            )
        self.follow(told)
        kinds = {part.kind for part in parts}
        if kinds == {"box"}:
            return [part.value for part in parts]
        if len(parts) == 1 and kinds <= {"mask", "paint"} and Path(parts[0].value).exists():
            return Path(parts[0].value)
        followed = self._followed.get(_followed_key(parts))
        if followed is not None and kinds == {"follow"}:
            return followed
        key = tuple(part.value for part in parts)
        if key not in self._masks:
            sources = _sources([part for part in parts if part.kind != "follow"])
            if followed is not None:
                sources = replace(sources, mask=[*sources.mask, followed])
            path = self.new_file("mask", ".mkv")
            make_mask(
                clip.info.path,
                path,
                sources,
                allow_truncated=self.allow_truncated,
                progress=_named(told, {"mask": "Drawing the hole"}),
            )
            self._masks[key] = path
        return self._masks[key]


@contextmanager
def _removed_on_failure(*paths: Path) -> Iterator[None]:
    """Remove files or folders if the block raises, a cancellation too."""
    try:
        yield
    except BaseException:
        for path in paths:
            remove(path)
        raise


def refuse_playlists(path: Path) -> None:
    """Raise InputError if a file is none of :data:`FORMATS`."""
    try:
        av.open(str(path), options={"format_whitelist": FORMATS}).close()
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path.name} cannot be read as a video: {error.strerror or error}. Expected a file such as .mp4, .mov, .mkv, "
            ".webm or .avi."
        ) from error


def _followed_key(parts: Sequence[Part]) -> tuple[str, ...]:
    return tuple(part.value for part in parts if part.kind == "follow")


def _sources(parts: Sequence[Part]) -> MaskSources:
    """Parts that are not followed, as :func:`vinpaint.masking.make_mask` takes them."""

    def values(kind: Kind) -> list[str]:
        return [part.value for part in parts if part.kind == kind]

    return MaskSources(
        boxes=values("box"),
        boxes_file=next(iter(values("boxes")), None),
        subtitles=next(iter(values("subtitles")), None),
        mask=values("mask"),
        paint=values("paint"),
    )


def _boxes(mask: Picture) -> tuple[Picture, list[str]]:
    """The box around each patch of a mask (H, W): drawn, and as ``--box`` takes it."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    drawn = np.zeros_like(mask)
    texts = []
    for x, y, width, height, _ in stats[1:count].tolist():
        drawn[y : y + height, x : x + width] = 255
        texts.append(f"{x},{y},{width},{height}")
    return drawn, texts


def _named(told: Told, names: Mapping[str, str]) -> Told:
    """Steps of making a mask under the names that visitors read."""
    return lambda what, done, total: told(names.get(what, what), done, total)


def _small(pictures: Picture, size: tuple[int, int]) -> Picture:
    small = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
    return np.asarray(small, np.uint8)
