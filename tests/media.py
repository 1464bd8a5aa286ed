# SPDX-License-Identifier: Apache-2.0
"""Small clips, made on the spot: what the tests of the video layer read."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def scene(index, width, height, seed=0):
    """A smooth, colourful uint8 (height, width, 3) picture that moves with ``index``."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    phase = 0.35 * index + 2.1 * seed
    red = 128 + 90 * np.sin(x / 9 + phase)
    green = 128 + 90 * np.sin(y / 7 - phase + seed)
    blue = 128 + 90 * np.sin((x + y) / 13 + 0.5 * phase)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def write_video(
    path: Path,
    *,
    frames=12,
    size=(64, 48),
    codec="libx264",
    pix_fmt="yuv420p",
    rate=25,
    pts=None,
    time_base=None,
    options=None,
    rotation=None,
    hflip=False,
    sample_aspect=None,
    tags=None,
    audio=False,
    subtitles=None,
    chapters=None,
    metadata=None,
    attachment=None,
    pictures=None,
):
    """A clip. ``pts``: time stamps in ``time_base``. ``tags``: range, matrix, primaries, transfer.

    ``rotation``: counter-clockwise degrees. ``subtitles``: a codec, such as mov_text or subrip.
    """
    time_base = time_base or Fraction(1, rate)
    with av.open(str(path), "w") as container:
        video = container.add_stream(
            codec, rate=rate, width=size[0], height=size[1], time_base=time_base
        )
        video.pix_fmt = pix_fmt
        video.codec_context.options = {"crf": "12"} if options is None else options
        if sample_aspect is not None:
            video.codec_context.sample_aspect_ratio = sample_aspect
        if tags is not None:
            context = video.codec_context
            context.color_range, context.colorspace = tags[:2]
            context.color_primaries, context.color_trc = tags[2:]
        if rotation is not None:
            video.set_display_rotation(rotation, hflip=hflip)
        container.metadata.update(metadata or {})
        if chapters:
            container.set_chapters(chapters)
        sound = container.add_stream("aac", rate=44100) if audio else None
        text = container.add_stream(subtitles) if subtitles else None
        if text is not None:
            text.codec_context.subtitle_header = _ASS_HEADER
            text.codec_context.time_base = Fraction(1, 1000)
            text.metadata["language"] = "eng"
        if attachment:
            container.add_attachment(attachment, "text/plain", b"a small file")
        stamps = list(range(frames)) if pts is None else pts
        for index, stamp in enumerate(stamps):
            picture = pictures[index] if pictures is not None else scene(index, *size)
            frame = av.VideoFrame.from_ndarray(
                picture, format="rgb24" if picture.dtype == np.uint8 else "rgb48le"
            )
            matrix = 1 if tags is not None and tags[1] == 1 else 5
            frame = frame.reformat(
                format=pix_fmt, dst_colorspace=matrix, dst_color_range=tags[0] if tags else 1
            )
            frame.pts, frame.time_base = stamp, time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        seconds = float((stamps[-1] + 1) * time_base)
        if sound is not None:
            _write_sound(container, sound, seconds)
        if text is not None:
            _write_text(container, text, subtitles)
    return path


def write_folder(path: Path, pictures, extension=".png"):
    """A folder ``frame1.png``, ``frame2.png``, … of (H, W), (H, W, 3) or (H, W, 4) pictures."""
    path.mkdir()
    for number, picture in enumerate(pictures, start=1):
        write_image(path / f"frame{number}{extension}", picture)
    return path


def write_image(path: Path, picture):
    if picture.ndim == 3:
        picture = picture[..., [2, 1, 0, 3][: picture.shape[2]]]
    done, data = cv2.imencode(path.suffix, picture)
    assert done
    path.write_bytes(data.tobytes())
    return path


def truncate(path: Path, share: float, name=None):
    """A copy of a file that ends after ``share`` of its bytes."""
    data = path.read_bytes()
    short = path.with_name(name or f"short-{path.name}")
    short.write_bytes(data[: int(share * len(data))])
    return short


def native_planes(path: Path):
    """Per frame: a list of (rows, bytes) uint8 arrays, one a plane, without padding."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            planes = []
            for index, plane in enumerate(frame.planes):
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                used = plane.width * _sample_bytes(frame.format, index)
                planes.append(rows[:, :used].copy())
            frames.append(planes)
    return frames


def packets(path: Path, kind: str):
    """The payloads of all packets of the first stream of a kind.

    Without those that only end a subtitle: MP4 puts them in as it sees fit.
    """
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [bytes(p) for p in container.demux(stream) if bytes(p).strip(b"\0")]


def shown_times(path: Path):
    """Time stamps of the video frames, exact, in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


_ASS_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n[V4+ Styles]\r\nFormat: Name, Fontname\r\n"
    b"Style: Default,Arial\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, MarginL, "
    b"MarginR, MarginV, Effect, Text\r\n"
)


def _sample_bytes(layout, index):
    components = [c for c in layout.components if c.plane == index]
    if layout.is_planar:
        return sum(-(-c.bits // 8) for c in components)
    return layout.padded_bits_per_pixel // 8


def _write_sound(container, stream, seconds):
    wave = (0.3 * np.sin(np.arange(int(44100 * seconds)) / 20)).astype(np.float32)
    for start in range(0, len(wave), 1024):
        part = np.stack([wave[start : start + 1024]] * 2)
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44100, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_text(container, stream, codec):
    for number, (start, words) in enumerate([(0, "first"), (200, "second")]):
        data = words.encode()
        if codec == "mov_text":
            data = len(data).to_bytes(2, "big") + data
        packet = av.Packet(data)
        packet.stream = stream
        packet.time_base = Fraction(1, 1000)
        packet.pts = packet.dts = start + number
        packet.duration = 150
        container.mux(packet)
