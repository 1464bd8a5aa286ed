# SPDX-License-Identifier: Apache-2.0
"""Reading a clip: a video file or a folder of pictures, frame by frame, in bounded memory."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt

from vinpaint.errors import InputError, InputWarning
from vinpaint.video.color import ColorConverter, Rgb, bit_depth, composable_format
from vinpaint.video.images import eight_bit, list_pictures, read_picture
from vinpaint.video.orientation import Orientation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER_RATE = Fraction(25)
"""Frames a second that a folder of pictures is taken to have."""

Native = av.VideoFrame | Rgb
"""A decoded frame, or a picture of a folder: (H, W), (H, W, 3) or (H, W, 4)."""


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before its frames are read. Sizes are as shown by a player."""

    path: Path
    kind: Literal["video", "folder"]
    codec: str
    """``h264``, ``vp9``, …; of a folder, the kind of its first file, such as ``png``."""
    width: int
    height: int
    frame_count: int | None
    """As the container claims it; None where it does not. Exact for a folder."""
    rate: Fraction
    """Frames a second; the average where the rate varies."""
    time_base: Fraction
    """Seconds that one unit of ``Frame.pts`` lasts."""
    duration: float | None
    """Seconds."""
    pixel_format: str
    bit_depth: int
    rotation: int
    """Degrees, clockwise, that a player turns the stored picture by; see Orientation."""
    sample_aspect: Fraction
    """Width of a pixel divided by its height, as shown."""
    color_range: int
    """0 unknown, 1 limited, 2 full."""
    color_matrix: int
    """ITU-T H.273 matrix coefficients; 2 unknown. So too the primaries and the transfer."""
    color_primaries: int
    color_transfer: int


@dataclass
class Thumbnail:
    """A frame, made small for a first look at the clip."""

    index: int
    time: float
    image: npt.NDArray[np.uint8]
    """(h, w, 3) BGR or (h, w) grey."""


class Frame:
    """One frame of a clip.

    index: from 0. pts: time stamp in units of the clip's time base, strictly increasing.
    time: seconds since the first frame. name: file name to give it in a folder, without suffix.
    native: the decoded frame in its own pixel format and stored orientation, or the picture.
    """

    def __init__(
        self,
        *,
        index: int,
        pts: int,
        time: float,
        name: str,
        native: Native,
        to_rgb: Callable[[Any], Rgb],
    ) -> None:
        self.index = index
        self.pts = pts
        self.time = time
        self.name = name
        self.native = native
        self._to_rgb = to_rgb

    @cached_property
    def rgb(self) -> Rgb:
        """(H, W, 3) as shown: uint8, or uint16 over 0..65535 for sources beyond 8 bits.

        Converted at the first call.
        """
        return self._to_rgb(self.native)


class Clip(ABC):
    """A clip that can be read any number of times, each time from its start."""

    info: ClipInfo
    frame_count: int | None
    """Exact once all frames have been read or looked at; before that, None unless certain."""

    @property
    def likely_frame_count(self) -> int | None:
        """The best that is known so far: ``frame_count``, or what the container claims."""
        return self.frame_count or self.info.frame_count

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """The frames in order. Raises InputError if the clip turns out to be damaged."""

    @abstractmethod
    def thumbnails(self, width: int | None = 256, *, gray: bool = False) -> Iterator[Thumbnail]:
        """The frames in order, quickly, made ``width`` pixels wide (never enlarged).

        ``width`` None keeps the size. Raises what :meth:`frames` raises.
        """


def open_clip(
    path: str | Path, *, allow_truncated: bool | None = None, argument: str = "INPUT"
) -> Clip:
    """Open a video file, or a folder with one PNG, JPEG or WebP file a frame.

    ``allow_truncated`` reads what can be read of a file that is cut short or damaged, with one
    InputWarning; ``None`` is no, where the user has no such option to be advised of. ``argument``
    is what messages call the path. Raises InputError: no such file, not a video, no video stream,
    no frames, cut short.
    """
    path = Path(path)
    if path.is_dir():
        return FolderClip(path, argument)
    if not path.exists():
        raise InputError(f"{argument}: no such file or folder: {path}")
    return VideoClip(path, allow_truncated, argument)


class FolderClip(Clip):
    """A folder of pictures, in natural order of their names."""

    def __init__(self, path: Path, argument: str) -> None:
        self._argument = argument
        self._paths = list_pictures(path, argument)
        stems: dict[str, Path] = {}
        for picture in self._paths:
            if picture.stem in stems:
                raise InputError(
                    f"{argument}: {stems[picture.stem].name} and {picture.name} would be written "
                    f"to the same file {picture.stem}.png; expected one picture a frame"
                )
            stems[picture.stem] = picture
        first = read_picture(self._paths[0], argument)
        height, width = first.shape[:2]
        channels = 1 if first.ndim == 2 else first.shape[2]
        depth = 8 * first.dtype.itemsize
        self.frame_count = len(self._paths)
        self.info = ClipInfo(
            path=path,
            kind="folder",
            codec=self._paths[0].suffix.lower().lstrip("."),
            width=width,
            height=height,
            frame_count=len(self._paths),
            rate=FOLDER_RATE,
            time_base=1 / FOLDER_RATE,
            duration=float(len(self._paths) / FOLDER_RATE),
            pixel_format={1: "gray", 3: "rgb24", 4: "rgba"}[channels]
            if depth == 8
            else {1: "gray16le", 3: "rgb48le", 4: "rgba64le"}[channels],
            bit_depth=depth,
            rotation=0,
            sample_aspect=Fraction(1),
            color_range=2,
            color_matrix=2,
            color_primaries=2,
            color_transfer=2,
        )

    def frames(self) -> Iterator[Frame]:
        depth = np.dtype(np.uint8 if self.info.bit_depth == 8 else np.uint16)
        for index, path in enumerate(self._paths):
            picture = read_picture(path, self._argument)
            height, width = picture.shape[:2]
            if (width, height) != (self.info.width, self.info.height):
                raise InputError(
                    f"{self._argument}: {path.name} is {width} x {height}, but "
                    f"{self._paths[0].name} is {self.info.width} x {self.info.height}; expected "
                    "frames of one size"
                )
            if picture.dtype != depth:
                raise InputError(
                    f"{self._argument}: {path.name} has {8 * picture.dtype.itemsize} bits a "
                    f"channel, but {self._paths[0].name} has {self.info.bit_depth}; expected "
                    "frames of one depth"
                )
            time = index / FOLDER_RATE
            yield Frame(
                index=index,
                pts=index,
                time=float(time),
                name=path.stem,
                native=picture,
                to_rgb=_picture_rgb,
            )

    def thumbnails(self, width: int | None = 256, *, gray: bool = False) -> Iterator[Thumbnail]:
        size = _small_size(self.info.width, self.info.height, width)
        for frame in self.frames():
            small = cv2.resize(eight_bit(frame.rgb), size, interpolation=cv2.INTER_AREA)
            code = cv2.COLOR_RGB2GRAY if gray else cv2.COLOR_RGB2BGR
            image = np.asarray(cv2.cvtColor(small, code), np.uint8)
            yield Thumbnail(frame.index, frame.time, image)


class VideoClip(Clip):
    """A video file, by way of FFmpeg's libraries."""

    def __init__(self, path: Path, allow_truncated: bool | None, argument: str) -> None:
        self._argument = argument
        self._warned = False
        self.allow_truncated = allow_truncated
        self.frame_count = None
        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    kinds = sorted({stream.type for stream in container.streams})
                    raise InputError(
                        f"{argument}: {path} has no video stream, only: "
                        f"{', '.join(kinds) or 'nothing'}; expected a video"
                    )
                self.stream_index = _main_stream(container).index
                self._describe(path, container)
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{argument}: {path} cannot be read as a video ({_reason(error)}); expected a "
                "video file that FFmpeg reads, or a folder of PNG, JPEG or WebP frames (an MP4 that was cut off fails like this too)"
            ) from error

    def _describe(self, path: Path, container: av.container.InputContainer) -> None:
        stream = container.streams[self.stream_index]
        assert isinstance(stream, av.VideoStream)
        self._check_size(path, stream)
        try:
            first = next(frame for packet in container.demux(stream) for frame in packet.decode())
        except StopIteration:
            raise InputError(f"{self._argument}: {path} has no frames; expected a video") from None
        context = stream.codec_context
        self.orientation = Orientation.of_frame(first)
        self.stored_sample_aspect = stream.sample_aspect_ratio or Fraction(1)
        rate = stream.average_rate or stream.guessed_rate or FOLDER_RATE
        seconds = stream.duration and stream.time_base and stream.duration * stream.time_base
        if not seconds and container.duration:
            seconds = Fraction(container.duration, av.time_base)
        matrix = int(first.colorspace)
        self.converter = ColorConverter(matrix, int(first.color_range), first.height)
        turned = self.orientation.transpose
        aspect = self.stored_sample_aspect
        self.info = ClipInfo(
            path=path,
            kind="video",
            codec=context.name,
            width=first.height if turned else first.width,
            height=first.width if turned else first.height,
            frame_count=stream.frames or None,
            rate=rate,
            time_base=stream.time_base or 1 / rate,
            duration=float(seconds) if seconds else None,
            pixel_format=first.format.name,
            bit_depth=bit_depth(first.format.name),
            rotation=self.orientation.rotation,
            sample_aspect=1 / aspect if turned else aspect,
            color_range=int(first.color_range),
            color_matrix=matrix,
            color_primaries=int(first.color_primaries),
            color_transfer=int(first.color_trc),
        )

    def _check_size(self, path: Path, stream: av.VideoStream) -> None:
        """The index of a container tells at once whether the file was cut off."""
        size = path.stat().st_size
        if any(entry.pos + entry.size > size for entry in stream.index_entries):
            self._damaged(path, f"its index points beyond its {size} bytes")

    def _damaged(self, path: Path, what: str) -> None:
        if not self.allow_truncated:
            no_option = self.allow_truncated is None
            advice = "" if no_option else ", or pass --allow-truncated to process what can be read"
            raise InputError(
                f"{self._argument}: {path} is cut short or damaged: {what}; get a whole copy{advice}"
            )
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{path} is cut short or damaged: {what}; what can be read is used",
                InputWarning,
                stacklevel=2,
            )

    def frames(self) -> Iterator[Frame]:
        for index, pts, time, decoded in self._decode():
            native = self.converter.convert(decoded, composable_format(decoded.format.name))
            yield Frame(
                index=index,
                pts=pts,
                time=time,
                name=f"{index:06d}",
                native=native,
                to_rgb=self._rgb,
            )

    def thumbnails(self, width: int | None = 256, *, gray: bool = False) -> Iterator[Thumbnail]:
        stored = self.orientation.transpose
        size = _small_size(self.info.width, self.info.height, width)
        for index, _, time, native in self._decode():
            image = self.converter.small(native, *(size[::-1] if stored else size), gray)
            shown = np.ascontiguousarray(self.orientation.to_display(image))
            yield Thumbnail(index, time, shown.astype(np.uint8, copy=False))

    def _rgb(self, native: av.VideoFrame) -> Rgb:
        shown = self.orientation.to_display(self.converter.to_rgb(native))
        return np.ascontiguousarray(shown)

    def _decode(self) -> Iterator[tuple[int, int, float, av.VideoFrame]]:
        """Index, pts, seconds since the first frame, decoded frame."""
        path = self.info.path
        with av.open(str(path)) as container:
            stream = container.streams[self.stream_index]
            assert isinstance(stream, av.VideoStream)
            stream.thread_type = "AUTO"
            end = _End(container)
            avi = container.format.name == "avi"
            clock = _Clock(self.info.time_base, self.info.rate, avi=avi)
            first_pts = index = 0
            size: tuple[int, int] | None = None
            for native in self._decoded(container, stream, end, clock):
                if size not in (None, (native.width, native.height)):
                    raise InputError(
                        f"{self._argument}: {path} changes its size from {size} to "
                        f"{(native.width, native.height)} at frame {index}; expected one size: "
                        "convert it first"
                    )
                size = native.width, native.height
                pts = clock.stamp(native)
                if index == 0:
                    first_pts = pts
                native.pts, native.time_base = pts, self.info.time_base
                yield index, pts, float((pts - first_pts) * self.info.time_base), native
                index += 1
            if not index:
                raise InputError(f"{self._argument}: {path} has no frames; expected a video")
            missing = end.missing()
            if missing:
                self._damaged(path, missing)
            self.frame_count = index

    def _decoded(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        end: _End,
        clock: _Clock,
    ) -> Iterator[av.VideoFrame]:
        path = self.info.path
        packets = container.demux()
        while True:
            try:
                packet = next(packets)
                end.see(packet)
                if packet.stream.index != stream.index:
                    continue
                if packet.is_corrupt:
                    self._damaged(path, "a packet is incomplete")
                clock.see(packet)
                frames = packet.decode()
            except StopIteration:
                return
            except av.FFmpegError as error:
                self._damaged(path, _reason(error))
                if isinstance(error, av.InvalidDataError):
                    continue
                return
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                if frame.is_corrupt:
                    self._damaged(path, f"a frame near {frame.time or 0:.2f} s is incomplete")
                yield frame


class _End:
    """Compares where the packets of all streams end with the duration that was announced."""

    def __init__(self, container: av.container.InputContainer) -> None:
        # Formats without a duration of their own have it guessed from the bit rate or from
        # their last time stamps; those guesses prove nothing.
        told = container.format.name in ("matroska,webm", "avi", "flv", "ivf")
        self._told = container.duration / av.time_base if told and container.duration else None
        self._start = (container.start_time or 0) / av.time_base
        self._last = self._start
        self._step = 0.0

    def see(self, packet: av.Packet[av.stream.Stream]) -> None:
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None and packet.time_base:
            step = float((packet.duration or 0) * packet.time_base)
            self._step = max(self._step, step)
            self._last = max(self._last, float(stamp * packet.time_base) + step)

    def missing(self) -> str | None:
        if self._told is None:
            return None
        found = self._last - self._start
        if found < self._told - max(0.1, 2 * self._step):
            return f"it announces {self._told:.2f} s and ends after {found:.2f} s"
        return None


class _Clock:
    """A strictly increasing time stamp for every frame, as the file says where it makes sense.

    Where presentation stamps run backwards more often than decoding stamps do, the latter are
    taken (FFmpeg's own rule); where there are none, the frame rate is.
    """

    def __init__(self, time_base: Fraction, rate: Fraction, *, avi: bool) -> None:
        self._step = max(1, round(1 / (rate * time_base)))
        self._rate = rate
        self._time_base = time_base
        self._faults = [0, 0]
        self._seen: list[int | None] = [None, None]
        self._last: int | None = None
        self._undated: deque[int] | None = deque(maxlen=1024) if avi else None

    def see(self, packet: av.Packet[Any]) -> None:
        """Remember when a packet is decoded, if the file is an AVI.

        AVI has no presentation stamps, and FFmpeg's guess is late by the delay of a decoder that
        reorders. Shown frames are the packets in another order, so the earliest stamp not yet
        given is the next frame's.
        """
        if self._undated is not None and packet.dts is not None and packet.size:
            self._undated.append(packet.dts)

    def stamp(self, frame: av.VideoFrame) -> int:
        stamps = (self._undated.popleft(), None) if self._undated else (frame.pts, frame.dts)
        for kind, stamp in enumerate(stamps):
            seen = self._seen[kind]
            if stamp is not None:
                self._faults[kind] += seen is not None and stamp <= seen
                self._seen[kind] = stamp
        pts, dts = stamps
        best = pts if dts is None or self._faults[0] <= self._faults[1] else dts
        if best is None:
            best = pts if pts is not None else dts
        if best is None:
            best = 0 if self._last is None else self._last + self._step
        if self._last is not None and best <= self._last:
            best = self._last + 1
        self._last = best
        return best


def _main_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is no cover picture."""
    videos = container.streams.video
    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in videos if not stream.disposition & cover), videos[0])


def _small_size(width: int, height: int, wanted: int | None) -> tuple[int, int]:
    if wanted is None or wanted >= width:
        return width, height
    return wanted, max(1, round(height * wanted / width))


def _picture_rgb(picture: Rgb) -> Rgb:
    if picture.ndim == 2:
        return np.repeat(picture[:, :, None], 3, axis=2)
    return picture[:, :, :3]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
