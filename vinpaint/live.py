# SPDX-License-Identifier: Apache-2.0
"""A camera, an address, a pipe or a file in, the same without its hole out, while it comes."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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

Late = Literal["queue", "drop", "hold"]

WAITING_FRAMES = 4
"""Frames that may wait to be filled; what then becomes of one more, ``late`` says."""

KEPT_LATENCIES = 1000
"""Latest frames whose latency the statistics are of."""

PIPE = "-"


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
    told: Callable[[Statistics], None] | None = None,
) -> Statistics:
    """Fill a stream until it ends.

    A source that stalls is waited for. Frames of another size than the first are brought to the first's size. A frame
    that is cut off at the end is left out; all that came before goes out.

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
        reconnect: seconds for which a source that ended or failed is tried again.
        timeout: seconds without any data after which an address counts as ended; ``None``: FFmpeg's own.
        told: given the statistics about once a second.

    Returns:
        The statistics of the whole stream.

    Raises:
        InputError: the source or the sink cannot be opened, or an unknown ``late``.
        OSError: the sink is gone.
    """
    if late not in ("queue", "drop", "hold"):
        raise InputError(f"--late: expected queue, drop or hold, got {late!r}")
    statistics = Statistics()
    with ExitStack() as stack:
        reader = _Reader(source, source_format, late, realtime, reconnect, timeout)
        stack.callback(reader.close)
        first = reader.first()
        fill = streamer(*first.image.shape[:2])
        writer = _Writer(sink, sink_format, codec, reader, first.image)
        stack.callback(writer.close)
        due: deque[tuple[int, float | None]] = deque()  # time stamps; no time of arrival: hold
        started = said = time.monotonic()

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

        for frame, missed, cut in reader.frames():
            if cut:
                write(fill.flush())
            statistics.dropped += len(missed)
            if late == "hold":
                due.extend((pts, None) for pts in missed)
            due.append((frame.pts, frame.at))
            write(fill.push(frame.image))
        write(fill.flush())
    return statistics


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
        self.time_base = Fraction(1, 1000)
        self.rate: Fraction | None = None
        self._size: tuple[int, int] | None = None
        self._thread = threading.Thread(target=self._read, name="vinpaint-source", daemon=True)

        self._container = self._open()
        self._thread.start()

    def close(self) -> None:
        """Let the thread end at its next frame."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def first(self) -> Arrived:
        """The first frame, which stays the next."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
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

    def _open(self) -> Any:
        options = {"flags": "low_delay"} if "://" in self._source else {}
        file: Any = sys.stdin.buffer if self._source == PIPE else self._source
        try:
            container = av.open(file, format=self._format, options=options, timeout=self._timeout)
            if not container.streams.video:
                raise InputError(f"{self._source}: expected a video, got no video stream")
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self._source}: cannot be opened: {error}") from error
        stream = container.streams.video[0]
        self.time_base = stream.time_base or self.time_base
        self.rate = stream.average_rate
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
        offset, last, cut = 0, -1, False
        while True:
            started: float | None = None
            try:
                for decoded in self._container.decode(video=0):
                    pts = decoded.pts if decoded.pts is not None else last + 1 - offset
                    if (
                        pts + offset <= last
                    ):  # a source that came back, or jumped: it goes on from there
                        offset = last + self._step() - pts
                    pts += offset
                    if self._realtime:
                        seconds = float(pts * self.time_base)
                        started = time.monotonic() - seconds if started is None else started
                        time.sleep(max(0.0, started + seconds - time.monotonic()))
                    if not self._put(decoded.to_ndarray(format="rgb24"), pts, cut):
                        return
                    last, cut = pts, False
            except av.FFmpegError:
                pass  # cut off, or gone: what came before goes out
            if last < 0 or not self._comes_back():
                return
            offset, cut = last + self._step(), True

    def _step(self) -> int:
        return max(1, round(1 / (self.rate or 25) / self.time_base))

    def _comes_back(self) -> bool:
        until = time.monotonic() + self._reconnect
        while time.monotonic() < until and not self._stopped:
            try:
                self._container = self._open()
            except InputError:
                time.sleep(0.2)
            else:
                return True
        return False

    def _put(self, image: NDArray[np.uint8], pts: int, cut: bool) -> bool:
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
                if self._waiting:
                    self._waiting[0] = self._waiting[0][0], self._waiting[0][1] or began
            self._waiting.append((Arrived(image, pts, time.monotonic()), cut))
            self._changed.notify_all()
            return not self._stopped


class _Writer:
    """Encodes and sends."""

    def __init__(
        self, sink: str, format: str | None, codec: str | None, reader: _Reader, first: Image
    ) -> None:
        piped = sink == PIPE
        file: Any = sys.stdout.buffer if piped else sink
        format = format or ("nut" if piped else _format_of(sink))
        codec = codec or ("rawvideo" if piped else "libx264")
        try:
            self._container = av.open(file, "w", format=format)
            stream: Any = self._container.add_stream(codec, rate=reader.rate or 25)
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = _pixel_format(codec, first)
            stream.codec_context.time_base = reader.time_base
            if codec == "libx264":
                stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "18"}
            self._container.start_encoding()
        except (av.FFmpegError, ValueError, OSError) as error:
            raise InputError(f"{sink}: cannot be written: {error}") from error
        self._stream, self._time_base = stream, reader.time_base
        self._last: Image | None = None

    def close(self) -> None:
        """Send what the encoder still holds."""
        with self._container:
            self._container.mux(self._stream.encode(None))

    def write(self, image: Image, pts: int) -> None:
        self._last = image
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(frame))

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


def _pixel_format(codec: str, image: Image) -> str:
    if codec == "rawvideo":
        return "rgb24"
    even = image.shape[0] % 2 == 0 and image.shape[1] % 2 == 0
    return "yuv420p" if even else "yuv444p"


def fixed_mask(
    height: int, width: int, mask: str | Path | None, boxes: list[tuple[int, int, int, int]]
) -> NDArray[np.uint8]:
    """The hole of every frame of a stream: a picture, white in the hole, or boxes x, y, width, height.

    Raises:
        InputError: a picture of another size, or a box that is not wholly inside the frame.
    """
    from vinpaint.video.images import read_picture

    hole = np.zeros((height, width), np.uint8)
    for x, y, w, h in boxes:
        if x < 0 or y < 0 or x + w > width or y + h > height:
            raise InputError(
                f"--box: {x},{y},{w},{h} is not wholly inside the frame, {width} x {height}"
            )
        hole[y : y + h, x : x + w] = 255
    if mask is not None:
        picture = read_picture(Path(mask), "--mask")
        bright = (picture if picture.ndim == 2 else picture[..., :3].max(axis=2)) >= 128
        if bright.shape != hole.shape:
            raise InputError(
                f"--mask: expected the stream's {width} x {height}, got {bright.shape[1]} x {bright.shape[0]}"
            )
        hole[bright] = 255
    return hole
