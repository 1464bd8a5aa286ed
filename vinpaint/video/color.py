# SPDX-License-Identifier: Apache-2.0
"""Conversion between a video's own pixel format and RGB, with the video's matrix and range."""

from __future__ import annotations

import sys
import threading
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, VideoReformatter

Rgb = npt.NDArray[Any]
"""Pixels, uint8 or uint16 (0..65535)."""

# Exact arithmetic, and chroma interpolated to every pixel on the way to and from RGB.
# swscale's own numbers: not every PyAV names the flags.
_AREA = 0x20
_ACCURATE = (
    0x4  # bicubic
    | 0x2000  # full chroma on output
    | 0x4000  # full chroma on input
    | 0x40000  # accurate rounding
    | 0x80000  # the same bits on every processor
)
_RGB48 = "rgb48le" if sys.byteorder == "little" else "rgb48be"

_BT709, _BT601 = 1, 5

# ITU-T H.273 matrix coefficients (the numbers that streams carry) and swscale's name for them.
_MATRICES = {
    1: _BT709,
    4: 4,
    5: _BT601,
    6: _BT601,
    7: 7,
    9: 9,
    10: 9,
}

# Formats whose samples do not lie pixel by pixel, and one that holds the same samples and does.
_UNPACKED = {
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yvyu422": "yuv422p",
    "uyyvyy411": "yuv411p",
    "y210le": "yuv422p10le",
    "y212le": "yuv422p12le",
    "pal8": "rgba",
    "monow": "gray",
    "monob": "gray",
}


def plane_rows(frame: av.VideoFrame, index: int) -> npt.NDArray[np.uint8]:
    """A view of one plane: (rows, bytes of a row with its padding)."""
    plane: Any = frame.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))
    return rows if plane.line_size > 0 else rows[::-1]


def bit_depth(pixel_format: str) -> int:
    """Bits of the deepest component of a pixel format."""
    return max(component.bits for component in av.VideoFormat(pixel_format).components)


def composable_format(pixel_format: str) -> str:
    """The pixel format in which frames of ``pixel_format`` are kept for compositing.

    It is the format itself, unless its samples are not laid out pixel by pixel (packed 4:2:2,
    palettes, one-bit pictures): then it is one that holds the same samples.
    """
    if pixel_format in _UNPACKED:
        return _UNPACKED[pixel_format]
    layout = av.VideoFormat(pixel_format)
    packed_chroma = not layout.is_planar and any(c.is_chroma for c in layout.components)
    if packed_chroma or layout.is_bit_stream or layout.has_palette or layout.is_bayer:
        return _RGB48 if bit_depth(pixel_format) > 8 else "rgb24"
    return pixel_format


class ColorConverter:
    """Converts frames of one video to RGB and back. Safe to share between threads.

    A video that does not say its matrix is taken as BT.709 from 720 lines on and as BT.601
    below, and one that does not say its range as limited: what players assume.
    """

    def __init__(self, matrix: int, color_range: int, height: int) -> None:
        """``matrix`` and ``color_range`` are the stream's numbers (ITU-T H.273; 2 is full)."""
        assumed = _BT709 if height >= 720 else _BT601
        self.matrix: int = _MATRICES.get(matrix, assumed)
        self._range = color_range
        self._lock = threading.Lock()
        self._to_rgb = VideoReformatter()
        self._from_rgb = VideoReformatter()
        self._between = VideoReformatter()
        self._small = VideoReformatter()

    def range_of(self, pixel_format: str) -> int:
        """The range that samples of ``pixel_format`` are in: 1 limited, 2 full."""
        if pixel_format.startswith("yuvj") or av.VideoFormat(pixel_format).is_rgb:
            return ColorRange.JPEG
        return ColorRange.JPEG if self._range == ColorRange.JPEG else ColorRange.MPEG

    def to_rgb(self, frame: av.VideoFrame) -> Rgb:
        """(H, W, 3), stored orientation: uint8, or uint16 over 0..65535 beyond 8 bits."""
        deep = bit_depth(frame.format.name) > 8
        with self._lock:
            rgb = self._to_rgb.reformat(
                frame,
                format=_RGB48 if deep else "rgb24",
                src_colorspace=self.matrix,
                src_color_range=self.range_of(frame.format.name),
                dst_color_range=ColorRange.JPEG,
                interpolation=_ACCURATE,
            )
        return _pixels(rgb, 3, np.dtype(np.uint16 if deep else np.uint8))

    def from_rgb(self, rgb: Rgb, pixel_format: str) -> av.VideoFrame:
        """A frame in ``pixel_format`` from (H, W, 3) uint8 or uint16 pixels."""
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(rgb), format="rgb24" if rgb.dtype == np.uint8 else _RGB48
        )
        with self._lock:
            return self._from_rgb.reformat(
                frame,
                format=pixel_format,
                src_color_range=ColorRange.JPEG,
                dst_colorspace=self.matrix,
                dst_color_range=self.range_of(pixel_format),
                interpolation=_ACCURATE,
            )

    def convert(self, frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
        """The frame in another pixel format: same matrix, same range where it has one."""
        if frame.format.name == pixel_format:
            return frame
        with self._lock:
            return self._between.reformat(
                frame,
                format=pixel_format,
                src_colorspace=self.matrix,
                src_color_range=self.range_of(frame.format.name),
                dst_colorspace=self.matrix,
                dst_color_range=self.range_of(pixel_format),
                interpolation=_ACCURATE,
            )

    def small(self, frame: av.VideoFrame, width: int, height: int, gray: bool) -> Rgb:
        """A quick uint8 picture: (height, width) grey or (height, width, 3) BGR."""
        with self._lock:
            picture = self._small.reformat(
                frame,
                width=width,
                height=height,
                format="gray" if gray else "bgr24",
                src_colorspace=self.matrix,
                src_color_range=self.range_of(frame.format.name),
                dst_color_range=ColorRange.JPEG,
                interpolation=_AREA,
            )
        pixels = _pixels(picture, 1 if gray else 3, np.dtype(np.uint8))
        return pixels[:, :, 0] if gray else pixels


def _pixels(frame: av.VideoFrame, channels: int, dtype: np.dtype[np.generic]) -> Rgb:
    rows = plane_rows(frame, 0)
    used = np.ascontiguousarray(rows[:, : frame.width * channels * dtype.itemsize])
    return used.view(dtype).reshape(frame.height, frame.width, channels)
