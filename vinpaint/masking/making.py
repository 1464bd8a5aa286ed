# SPDX-License-Identifier: Apache-2.0
"""A mask for a clip, from whatever says where its hole is: found, boxed, painted, followed."""

from __future__ import annotations

import functools
import operator
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.masking.boxes import read_boxes, read_subtitles
from vinpaint.masking.follow import follow
from vinpaint.masking.logo import find_logo
from vinpaint.video.atomic import AtomicOutput, check_distinct
from vinpaint.video.images import write_png
from vinpaint.video.masks import (
    BoxGrays,
    Grays,
    Hole,
    Span,
    Stamp,
    Timed,
    check_shown,
    open_mask,
    parse_box,
    parse_span,
    read_mask,
)
from vinpaint.video.preview import ContactSheet
from vinpaint.video.reader import Clip, Frame, open_clip
from vinpaint.video.shots import find_cuts
from vinpaint.video.writer import MaskVideoWriter

Progress = Callable[[str, int, int], None]
"""Called with what is being done, frames done and frames in all (0: not known yet). What it raises ends the work."""

LOGO_FRAMES = 120
"""Frames, evenly spread, that a logo is looked for in."""

FOLLOWED_SIDE = 480
"""Long side, in pixels, of the frames that an object is followed in."""


class NoLogoError(InputError):
    """A logo was looked for and none found."""


@dataclass(frozen=True)
class MaskReport:
    """What :func:`make_mask` did.

    Attributes:
        frames: of the clip and of the mask.
        hole_frames: those of them that have a hole.
        lost_frames: those in which an object was followed and not found.
    """

    frames: int
    hole_frames: int
    lost_frames: int


@dataclass(frozen=True)
class MaskSources:
    """What says where the hole is; the mask is all of it together.

    Attributes:
        logo: find a logo or a time stamp that stays in its place.
        boxes: as :func:`vinpaint.video.masks.parse_box` takes them.
        boxes_file: CSV, see :func:`vinpaint.masking.boxes.read_boxes`.
        subtitles: a subtitle file, or a video with subtitles in it.
        subtitles_area: ``x,y,w,h``, where subtitles are shown; ``None``: the lowest fifth of the frame.
        mask: as :func:`vinpaint.video.masks.open_mask` takes them: an image, a folder with one a frame, a video.
        paint: ``IMAGE`` or ``IMAGE@START-END``: a picture, white in the hole.
        follow: ``IMAGE@FRAME``: a picture, white on an object in that frame, which is followed through its shot.
            Several correct one another: each frame takes after the painted ones nearest before and after it. FRAME is
            a number or a time, and 0 if it is left out.
    """

    logo: bool = False
    boxes: Sequence[str] = ()
    boxes_file: str | Path | None = None
    subtitles: str | Path | None = None
    subtitles_area: str | None = None
    mask: Sequence[str | Path] = ()
    paint: Sequence[str] = ()
    follow: Sequence[str] = ()

    def files(self) -> list[Path]:
        """What is read, to be kept from being written over."""
        named = [
            self.boxes_file,
            self.subtitles,
            *self.mask,
            *(_split(text)[0] for text in (*self.paint, *self.follow)),
        ]
        return [Path(path) for path in named if path is not None]


def make_mask(
    input: str | Path,
    output: str | Path,
    sources: MaskSources,
    *,
    preview: str | Path | None = None,
    overwrite: bool = False,
    allow_truncated: bool = False,
    progress: Progress | None = None,
) -> MaskReport:
    """Write the mask of a clip, white in the hole, for :func:`vinpaint.inpaint_video`.

    Memory does not grow with the clip but for a bit a pixel and frame of what is followed; frames to follow an object in
    lie, small, in a temporary file beside the output.

    Args:
        input: a video that FFmpeg reads, or a folder of PNG, JPEG or WebP frames.
        output: a .mkv file, lossless; or a .png file, if the mask is the same in every frame.
        sources: where the hole is.
        preview: a PNG file for a contact sheet: the hole marked, and the mask.
        overwrite: replace an output that exists.
        allow_truncated: take what can be read of a damaged file.
        progress: see :data:`Progress`.

    Raises:
        InputError: anything wrong with an argument or a file it names, no source, no logo found, a box or a picture
            that no frame shows, a .png for a mask that changes; nothing is written then.
        OSError: the output cannot be written, for example on a full disk; nothing stays behind.
    """
    if not any(vars(sources).values()):
        raise InputError(
            "mask: expected something that says where the hole is, got nothing: --logo, --box, --boxes, --subtitles, "
            "--mask, --paint or --follow"
        )
    told = progress or (lambda _what, _done, _total: None)
    clip = open_clip(input, allow_truncated=allow_truncated)
    inputs = [clip.info.path, *sources.files()]
    check_distinct({"--output": output, "--preview": preview})
    still = Path(output).suffix.lower() == ".png"
    writer = None if still else MaskVideoWriter(output, clip, overwrite=overwrite, inputs=inputs)
    picture = AtomicOutput(output, "file", overwrite=overwrite, inputs=inputs) if still else None
    sheet_file = None
    if preview is not None:
        sheet_file = AtomicOutput(
            preview, "file", overwrite=overwrite, inputs=inputs, argument="--preview"
        )
    holes = open_sources(sources, clip)
    if sources.logo:
        holes.append(_logo(clip, told))
    followed = _follow(sources.follow, clip, Path(output).parent, told) if sources.follow else None
    if followed is not None:
        holes.append(followed)
    with ExitStack() as outputs:
        sheet_path = None if sheet_file is None else outputs.enter_context(sheet_file)
        picture_path = None if picture is None else outputs.enter_context(picture)
        if writer is not None:
            outputs.enter_context(writer)
        total = clip.likely_frame_count or 0
        sheet = ContactSheet(total, right="mask")
        mask, frames, hole_frames = None, 0, 0
        for frame, hole in _union(holes, clip):
            if writer is not None:
                writer.write(frame, hole)
            elif mask is not None and not np.array_equal(mask, hole):
                raise InputError(
                    f"--output: the mask changes at frame {frame.index}; expected a .mkv file, got {output}"
                )
            if sheet_path is not None:
                sheet.add(frame, cv2.cvtColor(hole, cv2.COLOR_GRAY2RGB), hole)
            mask = hole
            hole_frames += bool(hole.any())
            frames += 1
            told("mask", frames, total)
        for part in holes:
            check_shown(part, frames)
            if left := part.left():
                raise InputError(
                    f"--mask: the mask has {frames + left} frames, but the clip has {frames}; expected one mask a "
                    "frame, or a single image for all frames"
                )
        if picture_path is not None and mask is not None:
            write_png(picture_path, mask)
        if sheet_path is not None:
            sheet.save(sheet_path)
    return MaskReport(frames, hole_frames, 0 if followed is None else followed.lost)


class _Still(Grays):
    """A picture for a stretch of the clip."""

    def __init__(self, hole: Hole, span: Span, text: str) -> None:
        self._hole, self._span, self._text = hole, span, text
        self._shown = False

    def at(self, frame: Timed, /) -> Hole | None:
        if not self._span.covers(frame):
            return None
        self._shown = True
        return self._hole

    def unseen(self) -> str | None:
        return None if self._shown else self._text


class _Given(Grays):
    """A mask that is there already."""

    def __init__(self, path: str | Path, clip: Clip) -> None:
        self._grays = open_mask(path, clip, dilate=0).grays()
        self._path = path
        self._last: tuple[Hole, Hole] | None = None

    def at(self, frame: Timed, /) -> Hole | None:
        gray = self._grays.at(frame)
        if gray is None:
            raise InputError(
                f"--mask: {self._path} ends before frame {frame.index}; expected one mask a frame, or a single image"
            )
        if self._last is None or self._last[0] is not gray:
            self._last = gray, _white(gray)
        return self._last[1]

    def left(self) -> int:
        return self._grays.left()


class _Shown(BoxGrays):
    """Boxes of subtitles; some past the clip's end are nobody's mistake."""

    def unseen(self) -> str | None:
        return None if self.seen else "--subtitles: not one of the lines"


class _Followed(Grays):
    """A mask a frame, small, a bit a pixel."""

    def __init__(self, masks: Iterable[Hole], size: tuple[int, int]) -> None:
        self._size = size
        self._shape: tuple[int, ...] = ()
        self._masks: list[NDArray[np.uint8]] = []
        self.lost = 0
        for mask in masks:
            self._shape = mask.shape
            self._masks.append(np.packbits(mask > 0))
            self.lost += not mask.any()

    def at(self, frame: Timed, /) -> Hole | None:
        if frame.index >= len(self._masks):
            return None
        count = self._shape[0] * self._shape[1]
        small = np.unpackbits(self._masks[frame.index], count=count).reshape(
            self._shape
        ) * np.uint8(255)
        smooth = cv2.resize(small, self._size, interpolation=cv2.INTER_LINEAR)
        return _white(smooth)


def open_sources(sources: MaskSources, clip: Clip) -> list[Grays]:
    """The parts of a mask that are given, checked: all but a logo to be found and objects to be followed."""
    info = clip.info
    size = (info.width, info.height)
    holes: list[Grays] = []
    fifth = f"0,{info.height - info.height // 5},{info.width},{max(1, info.height // 5)}"
    boxes = [parse_box(text) for text in sources.boxes]
    listed = [] if sources.boxes_file is None else read_boxes(sources.boxes_file)
    shown = []
    if sources.subtitles is not None:
        area = parse_box(sources.subtitles_area or fifth)
        shown = read_subtitles(sources.subtitles, area)
    elif sources.subtitles_area is not None:
        raise InputError("--subtitles-area: expected --subtitles beside it")
    for argument, group in (("--box", boxes), ("--boxes", listed), ("--subtitles-area", shown)):
        for box in group:
            box.check_inside(*size, argument=argument)
        if group:
            kind = _Shown if group is shown else BoxGrays
            holes.append(kind(group, size, argument))
    holes.extend(_Given(path, clip) for path in sources.mask)
    for text in sources.paint:
        path, when = _split(text)
        span = Span() if when is None else parse_span(when, argument="--paint", within=text)
        gray = read_mask(path, size, argument="--paint")
        hole = _white(gray)
        if not hole.any():
            raise InputError(f"--paint: expected white in the hole, found none in {path}")
        holes.append(_Still(hole, span, f"--paint: {text}"))
    return holes


def _white(gray: NDArray[np.uint8]) -> Hole:
    """0 or 255."""
    return np.where(gray >= 128, np.uint8(255), np.uint8(0))


def _split(text: str) -> tuple[Path, str | None]:
    """``IMAGE@WHEN``; an @ that no time follows belongs to the name."""
    name, at, when = text.rpartition("@")
    if at and not Path(text).exists():
        return Path(name), when
    return Path(text), None


def _logo(clip: Clip, told: Progress) -> _Still:
    info = clip.info
    total = clip.likely_frame_count or round((info.duration or 0) * info.rate)
    step = max(1, total // LOGO_FRAMES)

    def sample() -> Iterator[NDArray[np.uint8]]:
        for picture in clip.thumbnails(None):
            told("logo", picture.index + 1, clip.frame_count or total)
            if picture.index % step == 0:
                yield cv2.cvtColor(picture.image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    hole = find_logo(sample())
    if not hole.any():
        raise NoLogoError(
            "--logo: found none: nothing keeps its place while the picture around it changes. Where the camera and the "
            "scene stand still it cannot be told from the scene; give its place with --box or --paint"
        )
    return _Still(hole, Span(), "logo")


def _follow(texts: Sequence[str], clip: Clip, scratch: Path, told: Progress) -> _Followed:
    info = clip.info
    painted = [(*_split(text), text) for text in texts]
    # Read before the clip is decoded: an error should not come after minutes.
    pictures = [
        read_mask(path, (info.width, info.height), argument="--follow") for path, _, _ in painted
    ]
    spans = [
        parse_span(f"{when or 0}-", argument="--follow", within=text) for _, when, text in painted
    ]
    width = round(info.width * min(1.0, FOLLOWED_SIDE / max(info.width, info.height)))
    stamps: list[tuple[int, float]] = []
    with tempfile.TemporaryFile(dir=scratch, prefix=".frames.") as file:
        shape: tuple[int, ...] = ()

        def kept() -> Iterator[NDArray[np.uint8]]:
            nonlocal shape
            for picture in clip.thumbnails(width):
                told("frames", picture.index + 1, clip.likely_frame_count or 0)
                stamps.append((picture.index, picture.time))
                rgb = cv2.cvtColor(picture.image, cv2.COLOR_BGR2RGB)
                shape = rgb.shape
                file.write(rgb.tobytes())
                yield picture.image

        cuts = find_cuts(kept())
        file.flush()
        frames = np.memmap(file, np.uint8, mode="r", shape=(len(stamps), *shape))
        by_frame = {
            _first_frame(span, stamps, text): _reduced(picture, (shape[1], shape[0]))
            for span, picture, (_, _, text) in zip(spans, pictures, painted, strict=True)
        }
        told("follow", 0, len(stamps))
        masks = follow(
            frames, by_frame, cuts=cuts, progress=lambda done, total: told("follow", done, total)
        )
        return _Followed(masks, (info.width, info.height))


def _first_frame(span: Span, stamps: Sequence[tuple[int, float]], text: str) -> int:
    found = next((index for index, time in stamps if span.covers(Stamp(index, time))), None)
    if found is None:
        raise InputError(f"--follow: {text} is past the end; the clip has {len(stamps)} frames")
    return found


def _reduced(picture: Hole, size: tuple[int, int]) -> Hole:
    """The painted picture at a smaller size (width, height), 0 or 255; never empty if it was not."""
    small = cv2.resize(_white(picture), size, interpolation=cv2.INTER_AREA)
    return np.where(small >= min(128, max(1, int(small.max()))), np.uint8(255), np.uint8(0))


def _union(parts: Sequence[Grays], clip: Clip) -> Iterator[tuple[Frame, Hole]]:
    """Each frame and all of its hole; the same array while nothing changes."""
    empty = np.zeros((clip.info.height, clip.info.width), np.uint8)
    last: tuple[list[Hole], Hole] | None = None
    for frame in clip.frames():
        present = [hole for part in parts if (hole := part.at(frame)) is not None]
        same = (
            last is not None
            and len(present) == len(last[0])
            and all(map(operator.is_, present, last[0]))
        )
        if last is None or not same:
            last = present, functools.reduce(np.maximum, present, empty)
        yield frame, last[1]
