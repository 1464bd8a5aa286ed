# SPDX-License-Identifier: Apache-2.0
"""Masks in all their forms, as one stream of holes beside a clip's frames."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from vinpaint.errors import InputError
from vinpaint.video.images import EXTENSIONS, eight_bit, list_pictures, read_picture
from vinpaint.video.reader import Clip, Thumbnail, open_clip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Hole = npt.NDArray[np.uint8]


class Timed(Protocol):
    """What a mask needs to know of a frame: a Frame or a Thumbnail."""

    @property
    def index(self) -> int: ...
    @property
    def time(self) -> float: ...


@dataclass(frozen=True)
class Stamp:
    """Where a frame is in its clip, without its picture."""

    index: int
    time: float


TimedT = TypeVar("TimedT", bound=Timed)


@dataclass(frozen=True)
class MaskUse:
    """How masks are laid over a clip; see :func:`open_mask`."""

    clip: Clip
    dilate: int
    invert: bool
    feather: int
    resize: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the clip."""
        return self.clip.info.width, self.clip.info.height

    def read(self, path: Path) -> Hole:
        """A picture as a mask of the clip's size."""
        return read_mask(path, self.size, resize=self.resize)


class Masks(ABC):
    """The holes of a clip.

    After a whole pass of :meth:`pair`, ``brightest`` is the lightest grey value (0 to 255) that the
    mask's source had, before inversion; for an empty mask it tells why.
    """

    def __init__(self, use: MaskUse) -> None:
        self._use = use
        self._last: tuple[Hole, Hole] | None = None
        self._last_weights: tuple[Hole, npt.NDArray[np.float32]] | None = None
        self.brightest = 0

    def pair(self, frames: Iterable[TimedT]) -> Iterator[tuple[TimedT, Hole]]:
        """Each frame with its hole: uint8 (H, W) as shown, 255 in the hole and 0 elsewhere.

        Inverted and dilated. ``frames`` are the clip's, from its first: frames() or
        thumbnails(). While the hole stays the same the same array is given again, not to be
        changed. Raises InputError if there are more or fewer masks than frames, or a box that
        no frame shows.
        """
        grays = self.grays()
        count = 0
        for frame in frames:
            gray = grays.at(frame)
            if gray is None:
                counted = self._use.clip.frame_count
                clip = f"{counted}" if counted else f"more than {count}"
                raise self._count_error(count, clip)
            yield frame, self._hole(gray)
            count += 1
        more = grays.left()
        if more:
            raise self._count_error(count + more, str(count))
        check_shown(grays, count)

    def weights(self, hole: Hole) -> Hole | npt.NDArray[np.float32]:
        """How much of the fill each pixel takes: the hole, or with feathering float 0 to 1."""
        if not self._use.feather:
            return hole
        if self._last_weights is None or self._last_weights[0] is not hole:
            self._last_weights = hole, feather_weights(hole, self._use.feather)
        return self._last_weights[1]

    def _hole(self, gray: Hole) -> Hole:
        if self._last is None or self._last[0] is not gray:
            self.brightest = max(self.brightest, int(gray.max()))
            hole = np.where((gray >= 128) != self._use.invert, np.uint8(255), np.uint8(0))
            hole = dilated(hole, self._use.dilate)
            self._last = gray, hole
        return self._last[1]

    def _count_error(self, masks: int, frames: str) -> InputError:
        return InputError(
            f"--mask: the mask has {masks} frames, but the clip has {frames}; expected one mask "
            "a frame, or a single image for all frames"
        )

    @abstractmethod
    def grays(self) -> Grays:
        """The pictures as they are, before inversion and dilation, for one pass over the clip."""


class Grays(ABC):
    """A mask's grey pictures during one pass over a clip."""

    @abstractmethod
    def at(self, frame: Timed, /) -> Hole | None:
        """The picture beside ``frame``, or None if the mask has ended."""

    def left(self) -> int:
        """How many pictures were not asked for."""
        return 0

    def unseen(self) -> str | None:
        """What no frame showed, with the argument it came by."""
        return None


def check_shown(grays: Grays, frames: int) -> None:
    """After a pass over so many frames: raise InputError if a part of the mask covered none."""
    unseen = grays.unseen()
    if unseen is not None:
        raise InputError(f"{unseen} covers no frame; the clip has {frames} frames")


def open_mask(
    spec: str | Path | Sequence[str],
    clip: Clip,
    *,
    dilate: int = 4,
    invert: bool = False,
    feather: int = 0,
    resize: bool = False,
    allow_truncated: bool = False,
) -> Masks:
    """The holes of ``clip``: white (grey value 128 and up) is the hole.

    spec: the path of an image (used for every frame), of a folder with an image a frame, or of
    a video; or a list of boxes, see :func:`parse_box`. Masks are as large as the clip is shown.
    Alpha is ignored, unless it is all that varies in an image.

    dilate: pixels that the hole grows by, a disc; after inversion. feather: pixels over which
    the fill fades in, inside the hole, for :meth:`Masks.weights`. resize: bring masks of
    another size to the clip's (nearest pixel) instead of refusing them.

    Raises InputError: no such file, no mask in it, unreadable, another size or count, a box
    that is malformed or not wholly inside the frame, a negative option.
    """
    for name, pixels in (("--dilate", dilate), ("--feather", feather)):
        if pixels < 0:
            raise InputError(f"{name}: expected 0 or more pixels, got {pixels}")
    use = MaskUse(clip, dilate, invert, feather, resize)
    if not isinstance(spec, (str, Path)):
        return BoxMasks([parse_box(text) for text in spec], use)
    path = Path(spec)
    if not path.exists():
        raise InputError(f"--mask: no such file or folder: {path}")
    if path.is_dir():
        return FolderMasks(list_pictures(path, "--mask"), use)
    if path.suffix.lower() in EXTENSIONS:
        return ImageMasks(path, use)
    return VideoMasks(open_clip(path, allow_truncated=allow_truncated, argument="--mask"), use)


class ImageMasks(Masks):
    """One image for all frames."""

    def __init__(self, path: Path, use: MaskUse) -> None:
        super().__init__(use)
        self._gray = use.read(path)

    def grays(self) -> Grays:
        return _One(self._gray)


class _One(Grays):
    def __init__(self, gray: Hole) -> None:
        self._gray = gray

    def at(self, _frame: Timed, /) -> Hole | None:
        return self._gray


class FolderMasks(Masks):
    """A folder with an image a frame, in natural order of their names."""

    def __init__(self, paths: list[Path], use: MaskUse) -> None:
        super().__init__(use)
        self._paths = paths
        if use.clip.frame_count not in (None, len(paths)):
            raise self._count_error(len(paths), str(use.clip.frame_count))
        use.read(paths[0])

    def grays(self) -> Grays:
        return _Folder(self._paths, self._use)


class _Folder(Grays):
    def __init__(self, paths: list[Path], use: MaskUse) -> None:
        self._paths = paths
        self._use = use
        self._next = 0

    def at(self, _frame: Timed, /) -> Hole | None:
        if self._next == len(self._paths):
            return None
        path = self._paths[self._next]
        self._next += 1
        return self._use.read(path)

    def left(self) -> int:
        return len(self._paths) - self._next


class VideoMasks(Masks):
    """A video whose frames are the masks."""

    def __init__(self, masks: Clip, use: MaskUse) -> None:
        super().__init__(use)
        self._masks = masks
        info = masks.info
        _same_size((info.width, info.height), info.path, use.size, use.resize, "--mask")

    def grays(self) -> Grays:
        return _Video(self._masks, self._use)


class _Video(Grays):
    def __init__(self, masks: Clip, use: MaskUse) -> None:
        self._path = masks.info.path
        self._pictures: Iterator[Thumbnail] = masks.thumbnails(None, gray=True)
        self._use = use

    def at(self, _frame: Timed, /) -> Hole | None:
        picture = next(self._pictures, None)
        if picture is None:
            return None
        use = self._use
        return _fitted(picture.image, self._path, use.size, use.resize, "--mask")

    def left(self) -> int:
        return sum(1 for _ in self._pictures)


@dataclass(frozen=True)
class Span:
    """A stretch of a clip; see :func:`parse_span`. int ends are frame numbers, float seconds."""

    start: int | float = 0
    end: int | float | None = None

    def covers(self, frame: Timed) -> bool:
        """Whether ``frame`` lies in it."""
        if isinstance(self.start, int):
            begun = frame.index >= self.start
        else:
            begun = frame.time >= self.start - _INSTANT
        if self.end is None:
            return begun
        if isinstance(self.end, int):
            return begun and frame.index <= self.end
        return begun and frame.time < self.end - _INSTANT


@dataclass(frozen=True)
class BoxHole:
    """A rectangle in pixels as shown, and when it is a hole; see :func:`parse_box`."""

    text: str
    x: int
    y: int
    width: int
    height: int
    span: Span = Span()

    def draw(self, gray: Hole) -> None:
        """Make it white in a mask."""
        gray[self.y : self.y + self.height, self.x : self.x + self.width] = 255

    def check_inside(self, width: int, height: int, argument: str = "--box") -> None:
        """Raise InputError if it is not wholly inside a frame of this size."""
        inside = self.x >= 0 and self.y >= 0
        if not inside or self.x + self.width > width or self.y + self.height > height:
            raise InputError(
                f"{argument}: {self.text} is not wholly inside the frame, which is {width} x {height}; "
                f"expected x + w <= {width} and y + h <= {height}"
            )


# Far below the shortest frame, far above the rounding of a time in seconds.
_INSTANT = 1e-6

_BOX = re.compile(r"(-?\d+),(-?\d+),(-?\d+),(-?\d+)(?:@(.*))?")
_SPAN = re.compile(r"([^-]*)-([^-]*)")
_MOMENT = re.compile(r"(\d+)|(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)s?")


def parse_box(text: str) -> BoxHole:
    """``x,y,w,h`` or ``x,y,w,h@START-END``, in pixels from the top left corner.

    START-END is what :func:`parse_span` takes. Raises InputError if it is malformed.
    """
    match = _BOX.fullmatch(text.replace(" ", ""))
    if match is None or (match[5] is not None and not _SPAN.fullmatch(match[5])):
        raise InputError(
            f"--box: expected x,y,w,h or x,y,w,h@START-END, such as 40,30,120,80@2s-4.5s, "
            f"got {text!r}"
        )
    x, y, width, height = (int(number) for number in match.group(1, 2, 3, 4))
    if width < 1 or height < 1:
        raise InputError(f"--box: expected a width and a height of 1 or more, got {text!r}")
    span = parse_span(match[5], argument="--box", within=text) if match[5] else Span()
    return BoxHole(text, x, y, width, height, span)


def parse_span(text: str, *, argument: str, within: str | None = None) -> Span:
    """``START-END``, a stretch of a clip.

    A bare whole number is a frame number, counted from 0; ``4s``, ``4.5`` and ``1:04.5`` are
    seconds after the first frame. Either may be left out. Frames are inclusive (``10-19`` is ten
    frames); seconds are half open (``2s-4s`` ends where ``4s-`` begins). ``argument`` and
    ``within``, the text around, are for messages. Raises InputError if it is malformed.
    """
    within = within or text
    match = _SPAN.fullmatch(text.replace(" ", ""))
    if match is None:
        raise InputError(
            f"{argument}: expected START-END, such as 10-20 or 2s-4.5s, got {within!r}"
        )
    start = _moment(match[1], argument, within) if match[1] else 0
    end = _moment(match[2], argument, within) if match[2] else None
    empty = end is not None and (start > end or (start == end and isinstance(end, float)))
    if empty and type(start) is type(end):
        raise InputError(f"{argument}: expected START before END, got {within!r}")
    return Span(start, end)


def _moment(text: str, argument: str, within: str) -> int | float:
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise InputError(
            f"{argument}: expected a frame number (10), or seconds (4s, 4.5, 1:04.5), got "
            f"{text!r} in {within!r}"
        )
    if match[1]:
        return int(match[1])
    return 3600 * int(match[2] or 0) + 60 * int(match[3] or 0) + float(match[4])


class BoxMasks(Masks):
    """Rectangles, each for the whole clip or a part of it."""

    def __init__(self, boxes: list[BoxHole], use: MaskUse) -> None:
        super().__init__(use)
        clip = use.clip
        self._boxes = boxes
        if not boxes:
            raise InputError("--box: expected at least one box, got none")
        for box in boxes:
            box.check_inside(clip.info.width, clip.info.height)

    def grays(self) -> Grays:
        return BoxGrays(self._boxes, self._use.size)


class BoxGrays(Grays):
    """Rectangles, each while it is a hole, in frames of one size (width, height)."""

    def __init__(
        self, boxes: Sequence[BoxHole], size: tuple[int, int], argument: str = "--box"
    ) -> None:
        """``argument``: what messages call a box."""
        self._boxes = boxes
        self._shape = size[::-1]
        self._argument = argument
        self._shown: set[BoxHole] = set()
        self._last: tuple[list[BoxHole], Hole] | None = None

    def at(self, frame: Timed, /) -> Hole | None:
        active = [box for box in self._boxes if box.span.covers(frame)]
        if self._last is None or self._last[0] != active:
            gray = np.zeros(self._shape, np.uint8)
            for box in active:
                box.draw(gray)
            self._last = active, gray
            self._shown.update(active)
        return self._last[1]

    @property
    def seen(self) -> int:
        """How many of the boxes some frame showed."""
        return len(self._shown)

    def unseen(self) -> str | None:
        unseen = next((box.text for box in self._boxes if box not in self._shown), None)
        return None if unseen is None else f"{self._argument}: {unseen}"


# From here on distances are faster than a disc; the result is the same.
_WIDE = 12


def dilated(hole: Hole, radius: int) -> Hole:
    """The hole grown by a disc of ``radius`` pixels; uint8 (H, W), 0 or 255."""
    if not radius:
        return hole
    if radius > _WIDE:
        far = cv2.distanceTransform(255 - hole, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near = far**2 <= radius * (radius + 1) + 0.25  # whole numbers, but for the root's rounding
        return np.where(near & bool(hole.any()), np.uint8(255), np.uint8(0))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x * x + y * y <= radius * (radius + 1)).astype(np.uint8)
    return np.asarray(cv2.dilate(hole, disc), np.uint8)


def reduced_hole(hole: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The hole (H, W) at a smaller ``size`` (width, height): a pixel is hole if any pixel it covers is."""
    share = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(share > 0)


def feather_weights(hole: Hole, pixels: int) -> npt.NDArray[np.float32]:
    """A ramp from the edge of the hole inwards: 0 outside, 1 from ``pixels`` deep on.

    A part of the hole that is less deep reaches 1 where it is deepest, so that nothing in it shines
    through everywhere. The frame's own border is no edge. hole: uint8 (H, W). Returns float32
    (H, W).
    """
    if hole.all():
        return np.ones(hole.shape, np.float32)
    depth = cv2.distanceTransform(hole, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    count, parts = cv2.connectedComponents(hole)
    deepest = np.zeros(count, np.float32)
    np.maximum.at(deepest, np.asarray(parts, np.intp), depth)
    ramp = np.clip(deepest, 1, pixels + 1)[parts]
    return np.minimum(depth / ramp, 1).astype(np.float32)


def read_mask(
    path: Path, size: tuple[int, int], *, resize: bool = False, argument: str = "--mask"
) -> Hole:
    """A picture as a mask: grey, uint8 (H, W), 128 and up is the hole.

    Alpha is ignored, unless it is all that varies. size: width and height that it must have;
    ``resize`` brings another one to it (nearest pixel). ``argument`` is for messages. Raises
    InputError: unreadable, or of another size.
    """
    return _fitted(_read_gray(path, argument), path, size, resize, argument)


def _read_gray(path: Path, argument: str) -> Hole:
    picture = eight_bit(read_picture(path, argument))
    if picture.ndim == 2:
        return picture
    if picture.shape[2] == 4:
        color, alpha = picture[:, :, :3], picture[:, :, 3]
        if (color == color[0, 0]).all() and (alpha != alpha[0, 0]).any():
            return np.ascontiguousarray(alpha)
    return np.asarray(
        cv2.cvtColor(np.ascontiguousarray(picture[:, :, :3]), cv2.COLOR_RGB2GRAY), np.uint8
    )


def _fitted(gray: Hole, path: Path, size: tuple[int, int], resize: bool, argument: str) -> Hole:
    height, width = gray.shape
    if _same_size((width, height), path, size, resize, argument):
        return gray
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _same_size(
    got: tuple[int, int], path: Path, size: tuple[int, int], resize: bool, argument: str
) -> bool:
    """Whether the size is the expected. Raises InputError if it is not and may not differ."""
    if got != size and not resize:
        advice = ", or pass --mask-resize" if argument == "--mask" else ""
        raise InputError(
            f"{argument}: {path} is {got[0]} x {got[1]}, but the clip is shown at {size[0]} x "
            f"{size[1]}; expected the same size{advice}"
        )
    return got == size
