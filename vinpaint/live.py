# SPDX-License-Identifier: Apache-2.0
"""A camera, an address, a pipe or a file in, the same without its hole out, while it comes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.painting import Image
from vinpaint.streaming import Streamer
from vinpaint.video.images import EXTENSIONS
from vinpaint.video.masks import BoxHole, Span, read_mask

Late = Literal["queue", "drop", "hold"]

WAITING_FRAMES = 4
"""Frames that may wait to be filled; what then becomes of one more, ``late`` says."""

KEPT_LATENCIES = 1000
"""Latest frames whose latency the statistics are of."""

PIPE = "-"

JUMP_SECONDS = 1.0
"""Time stamps that go back by more than this go on from the last one; by less, they are jitter."""

RETRY_SECONDS = 0.2
"""Between two tries to open a source that ended."""

LOW_LATENCY = {"flags": "low_delay", "analyzeduration": "500000", "fpsprobesize": "0"}
"""FFmpeg's options for what comes while it is read: to look at half a second before it begins, not at five."""

CLOSING_SECONDS = 0.5
"""That a source gets to come to its end; one that stalls does not."""


class Arrived(NamedTuple):
    """A decoded frame.

    Attributes:
        image: (H, W, 3) uint8, red green blue.
        pts: its time stamp, in units of the source's time base.
        at: when it was decoded, by ``time.monotonic()``.
    """

    image: Image
    pts: int
    at: float


@dataclass
class Statistics:
    """Of a stream, while it runs.

    Attributes:
        frames: written.
        dropped: that came and were left out, or were replaced by the one before (``held``).
        held: copies of the frame before that were written in the place of dropped ones.
        seconds: since the first frame came.
        latencies: of the latest frames, in seconds from decoded to written.
    """

    frames: int = 0
    dropped: int = 0
    held: int = 0
    seconds: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))

    def line(self) -> str:
        """For people."""
        rate = self.frames / self.seconds if self.seconds else 0.0
        text = f"{self.frames} frames, {rate:.1f} frames/s"
        if self.latencies:
            p50, p95, p99 = 1000 * np.percentile(list(self.latencies), (50, 95, 99))
            text += f", latency p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms"
        return text + f", {self.dropped} dropped, {self.held} held"


def stream_video(
    source: str,
    sink: str,
    streamer: Callable[[int, int], Streamer],
    *,
    source_format: str | None = None,
    sink_format: str | None = None,
    codec: str | None = None,
    late: Late = "queue",
    realtime: bool = False,
    reconnect: float = 0.0,
    timeout: float | None = None,
    overwrite: bool = False,
    told: Callable[[Statistics], None] | None = None,
) -> Statistics:
    """Fill a stream until it ends, or until Ctrl-C: then what has come by then goes out.

    Pictures alone: sound is not passed on. A source that stalls is waited for. Frames of another size than the first are
    brought to the first's size. A frame that is cut off at the end is left out; all that came before goes out. Time
    stamps go on where a source jumps back or comes back.

    Args:
        source: a file, an address (rtsp, rtmp, udp, srt, http), a device such as ``/dev/video0``, or ``-``: standard input.
        sink: a file, an address, a device, or ``-``: standard output.
        streamer: makes the one that fills, for frames of so many rows and columns.
        source_format: FFmpeg's name of the format, such as ``v4l2``; ``None``: found out.
        sink_format: alike; ``None``: by the suffix or the address, for standard output ``nut``.
        codec: encoder; ``None``: raw for standard output, else libx264, tuned for latency.
        late: what happens to frames that come faster than they are filled: ``"queue"``: the source waits, ``"drop"``:
            the oldest that waits is left out, ``"hold"``: the frame before goes out in its place.
        realtime: read a file no faster than it plays.
        reconnect: seconds for which an address or a device that ended or failed is tried again.
        timeout: seconds without any data after which an address counts as ended; ``None``: FFmpeg's own.
        overwrite: replace a file that exists.
        told: given the statistics about once a second.

    Returns:
        The statistics of the whole stream.

    Raises:
        InputError: the source or the sink cannot be opened, the sink is a file that exists, an unknown ``late``, or
            ``reconnect`` for a file or a pipe.
        OSError: the sink is gone.
    """
    if late not in ("queue", "drop", "hold"):
        raise InputError(f"--late: expected queue, drop or hold, got {late!r}")
    if reconnect and _is_file(source):
        raise InputError(f"--reconnect: expected an address or a device, got {source}")
    if _is_file(sink) and Path(sink).exists():
        if _is_file(source) and Path(source).exists() and Path(sink).samefile(source):
            raise InputError(f"--output: {sink} is the input")
        if not overwrite:
            raise InputError(f"--output: {sink} exists; --overwrite replaces it")
    statistics = Statistics()
    with ExitStack() as stack:
        reader = _Reader(source, source_format, late, realtime, reconnect, timeout)
        stack.callback(reader.close)
        first = reader.first()
        fill = streamer(*first.image.shape[:2])
        writer = _Writer(sink, sink_format, codec, reader, first.image)
        stack.callback(writer.close)
        due: deque[tuple[int, float | None]] = deque()  # time stamps; no time of arrival: hold
        started = said = first.at

        def write(images: list[Image]) -> None:
            nonlocal said
            for image in images:
                while due[0][1] is None:
                    statistics.held += writer.hold(due.popleft()[0])
                pts, came = due.popleft()
                writer.write(image, pts)
                statistics.frames += 1
                statistics.latencies.append(time.monotonic() - (came or 0.0))
            now = time.monotonic()
            statistics.seconds = now - started
            if told is not None and now - said >= 1:
                said = now
                told(statistics)

        try:
            for frame, missed, cut in reader.frames():
                if cut:
                    write(fill.flush())
                statistics.dropped += len(missed)
                if late == "hold":
                    due.extend((pts, None) for pts in missed)
                due.append((frame.pts, frame.at))
                write(fill.push(frame.image))
        except KeyboardInterrupt:
            reader.close()
        write(fill.flush())
    return statistics


def _is_file(name: str) -> bool:
    """Or a pipe, as opposed to an address or a device."""
    return "://" not in name and not name.startswith("/dev/")


class _Reader:
    """Decodes in a thread of its own."""

    def __init__(
        self,
        source: str,
        format: str | None,
        late: Late,
        realtime: bool,
        reconnect: float,
        timeout: float | None,
    ) -> None:
        self._source, self._format, self._late = source, format, late
        self._realtime, self._reconnect, self._timeout = realtime, reconnect, timeout
        self._waiting: deque[tuple[Arrived, bool]] = deque()
        self._missed: list[int] = []
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._size: tuple[int, int] | None = None
        self._container = self._open(timeout)
        stream = self._container.streams.video[0]
        self.time_base: Fraction = stream.time_base or Fraction(1, 1000)
        self.rate: Fraction | None = stream.average_rate
        # It is not known where a source is joined between two key frames.
        self.rgb = stream.codec_context.pix_fmt is not None and stream.format.is_rgb
        self._thread = threading.Thread(target=self._read, name="vinpaint-source", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the thread end, after the frame that it waits for or not at all: it holds nothing that others need."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(CLOSING_SECONDS)

    def first(self) -> Arrived:
        """The first frame, which stays the next; a pipe says no rate, the second frame shows it."""
        with self._changed:
            enough = 1 if self.rate else 2
            self._changed.wait_for(lambda: len(self._waiting) >= enough or self._ended)
            if len(self._waiting) > 1 and self.rate is None:
                (one, _), (two, _) = self._waiting[0], self._waiting[1]
                self.rate = (1 / ((two.pts - one.pts) * self.time_base)).limit_denominator(1001)
            if not self._waiting:
                self._raise()
                raise InputError(f"{self._source}: expected a video, got one without a frame")
            return self._waiting[0][0]

    def frames(self) -> Iterator[tuple[Arrived, list[int], bool]]:
        """A frame, the time stamps of those that were left out before it, and whether it begins anew."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    self._raise()
                    return
                frame, cut = self._waiting.popleft()
                missed = [pts for pts in self._missed if pts < frame.pts]
                self._missed = self._missed[len(missed) :]
                self._changed.notify_all()
            yield frame, missed, cut

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _open(self, timeout: float | None) -> Any:
        live = self._source == PIPE or "://" in self._source
        options = LOW_LATENCY if live else {}
        # FFmpeg itself reads standard input: Python's buffer would wait until it is full.
        file = "pipe:0" if self._source == PIPE else self._source
        try:
            container = av.open(
                file, format=self._format, options=options, timeout=(timeout, self._timeout)
            )
        except (av.FFmpegError, OSError) as error:
            name = "standard input" if self._source == PIPE else self._source
            raise InputError(f"{name}: cannot be opened as a video: {error.strerror}") from error
        if not container.streams.video:
            container.close()
            raise InputError(f"{self._source}: expected a video, got no video stream")
        if self._source == PIPE and _without_index(container):
            container.close()
            raise InputError(
                f"{self._source}: an MP4 or MOV whose index is at its end cannot be read through a pipe; give the file by its "
                "name, or write it with -movflags +faststart"
            )
        return container

    def _read(self) -> None:
        try:
            self._read_all()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read_all(self) -> None:
        last, until = -1, time.monotonic()
        while True:
            cut, offset = last >= 0, 0
            begun = False
            started: float | None = None
            try:
                for decoded in self._decoded():
                    at = time.monotonic()
                    step = self._step()
                    pts = last + step - offset if last >= 0 else 0
                    if decoded.pts is not None:
                        pts = round(decoded.pts * decoded.time_base / self.time_base)
                    if last >= 0:
                        back = float((last - pts - offset) * self.time_base)
                        if not begun or back > JUMP_SECONDS:
                            offset = last + step - pts
                        pts = max(last + 1, pts + offset)
                    begun = True
                    if self._realtime:
                        seconds = float(pts * self.time_base)
                        started = time.monotonic() - seconds if started is None else started
                        self._wait_until(started + seconds)
                    if not self._put(decoded.to_ndarray(format="rgb24"), pts, at, cut):
                        return
                    last, cut = pts, False
                    until = time.monotonic() + self._reconnect
            except av.FFmpegError:
                pass  # cut off, or gone: what came before goes out
            finally:
                self._container.close()  # or the address would still be in use
            if last < 0 or not self._comes_back(until):
                return

    def _decoded(self) -> Iterator[Any]:
        for packet in self._container.demux(video=0):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue  # from before the first key frame of a source that was joined, or damaged on its way
            yield from frames

    def _step(self) -> int:
        """From one frame to the next, in units of the time base."""
        return max(1, round(1 / (self.rate or 25) / self.time_base))

    def _comes_back(self, until: float) -> bool:
        while not self._stopped and (left := until - time.monotonic()) > 0:
            self._wait_until(time.monotonic() + min(left, RETRY_SECONDS))
            try:
                self._container = self._open(left)
            except InputError:
                continue
            return True
        return False

    def _wait_until(self, moment: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, max(0.0, moment - time.monotonic()))

    def _put(self, image: NDArray[np.uint8], pts: int, at: float, cut: bool) -> bool:
        self._size = self._size or (image.shape[1], image.shape[0])
        if image.shape[1::-1] != self._size:
            image = np.asarray(
                cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8
            )
        with self._changed:
            if self._late == "queue":
                self._changed.wait_for(lambda: self._stopped or len(self._waiting) < WAITING_FRAMES)
            elif len(self._waiting) == WAITING_FRAMES:
                dropped, began = self._waiting.popleft()
                self._missed.append(dropped.pts)
                following, begins = self._waiting[0]
                self._waiting[0] = following, begins or began
            self._waiting.append((Arrived(image, pts, at), cut))
            self._changed.notify_all()
            return not self._stopped


class _Writer:
    """Encodes and sends."""

    def __init__(
        self, sink: str, format: str | None, codec: str | None, reader: _Reader, first: Image
    ) -> None:
        piped = sink == PIPE
        file = "pipe:1" if piped else sink
        format = format or ("nut" if piped else _format_of(sink))
        codec = codec or ("rawvideo" if piped else "libx264")
        container = None
        try:
            self._container = container = av.open(file, "w", format=format)
            stream: Any = self._container.add_stream(codec, rate=reader.rate or 25)
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = _pixel_format(codec, first, reader.rgb)
            stream.codec_context.time_base = reader.time_base
            if codec == "libx264":
                stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "18"}
            self._container.start_encoding()
        except (av.FFmpegError, ValueError, OSError) as error:
            if container is not None:
                container.close()
            missing = isinstance(error, FileNotFoundError)
            hint = "" if format or missing else " (--output-format names the format)"
            raise InputError(f"{sink}: cannot be written: {error}{hint}") from error
        self._stream, self._time_base = stream, reader.time_base
        self._name = "standard output" if sink == PIPE else sink
        self._last: Image | None = None

    def close(self) -> None:
        """Send what the encoder still holds."""
        with self._told(), self._container:
            self._container.mux(self._stream.encode(None))

    def write(self, image: Image, pts: int) -> None:
        self._last = image
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = pts, self._time_base
        with self._told():
            self._container.mux(self._stream.encode(frame))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            raise InputError(f"{self._name}: whoever reads it has closed it") from error

    def hold(self, pts: int) -> int:
        """The last frame again; how many were written: none before the first frame."""
        if self._last is None:
            return 0
        self.write(self._last, pts)
        return 1


def _format_of(sink: str) -> str | None:
    """FFmpeg's format for an address that does not say; ``None`` lets FFmpeg look at the suffix."""
    scheme = sink.partition("://")[0] if "://" in sink else ""
    formats = {"rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "srt": "mpegts", "tcp": "mpegts"}
    if scheme == "rtsp":
        return "rtsp"
    return formats.get(scheme)


def _without_index(container: Any) -> bool:
    return (
        "mov" in container.format.name and container.streams.video[0].codec_context.pix_fmt is None
    )


def _pixel_format(codec: str, image: Image, rgb: bool) -> str:
    """What players want; red, green and blue only where they came so and go on raw."""
    if codec == "rawvideo" and rgb:
        return "rgb24"
    even = image.shape[0] % 2 == 0 and image.shape[1] % 2 == 0
    return "yuv420p" if even else "yuv444p"


def fixed_mask(
    height: int,
    width: int,
    mask: str | Path | None,
    boxes: Sequence[BoxHole],
    *,
    resize: bool = False,
) -> NDArray[np.uint8]:
    """The hole of every frame of a stream: a picture, white in the hole, or boxes.

    ``resize`` brings a picture of another size to the frames'.

    Raises:
        InputError: a picture of another size, a box with times or not wholly inside the frame, or no hole at all.
    """
    hole = np.zeros((height, width), np.uint8)
    for box in boxes:
        if box.span != Span():
            raise InputError(f"--box: a stream's hole is fixed; expected no times, got {box.text}")
        box.check_inside(width, height)
        box.draw(hole)
    if mask is not None:
        if Path(mask).suffix.lower() not in EXTENSIONS:
            raise InputError(
                f"--mask: a stream's hole is fixed; expected a picture, got {mask} (`vinpaint inpaint` takes masks that change)"
            )
        hole[read_mask(Path(mask), (width, height), resize=resize) >= 128] = 255
    if not hole.any():
        raise InputError("--mask: expected a hole, white on black, got none")
    return hole
