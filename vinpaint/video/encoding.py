# SPDX-License-Identifier: Apache-2.0
"""Which encoder, pixel format and options a video is written with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
from av.codec.codec import find_best_pix_fmt_of_list

from vinpaint.errors import InputError
from vinpaint.video.color import bit_depth

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_CRF = 16
"""Constant rate factor. 18 is commonly held to look like its source; here the known pixels are
encoded a second time and should not show it, so a little below that."""

MAX_CRF = 63

_NAMES = {
    "h264": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
}

_WITH_CRF = ("libx264", "libx264rgb", "libx265", "libvpx", "libvpx-vp9", "libsvtav1")

_OPTIONS = {
    "libx265": {"x265-params": "log-level=error"},
    # Without a zero bit rate these take the rate factor only as a lower bound.
    "libvpx": {"b:v": "0", "row-mt": "1", "deadline": "good", "cpu-used": "2"},
    "libvpx-vp9": {"b:v": "0", "row-mt": "1", "deadline": "good", "cpu-used": "2"},
    "libsvtav1": {"preset": "6"},
    "ffv1": {"level": "3", "slices": "4", "slicecrc": "1"},
}


@dataclass(frozen=True)
class Encoding:
    """An encoder by FFmpeg's name, its pixel format, and its private options."""

    encoder: str
    pixel_format: str
    options: dict[str, str]


def choose_encoding(
    output: Path,
    container: av.container.OutputContainer,
    source_format: str,
    width: int,
    height: int,
    *,
    codec: str | None = None,
    crf: float | None = None,
    pix_fmt: str | None = None,
) -> Encoding:
    """The encoding for a source of ``source_format``, ``width`` x ``height`` pixels.

    Without ``codec``: H.264, or VP9 in WebM; beyond 8 bits H.265 (what players decode at that
    depth) or AV1. Without ``pix_fmt``: the encoder's format nearest to the source's. Raises
    InputError: no such encoder or format, or one that the container or the encoder cannot take.
    """
    if codec is None:
        encoder = _default_encoder(output, container, bit_depth(source_format) > 8)
    else:
        encoder = _NAMES.get(codec, codec)
    try:
        info = av.Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        raise InputError(
            f"--codec: no encoder named {codec}; expected one of "
            f"{', '.join(sorted({*_NAMES, 'ffv1'}))}, or another encoder of FFmpeg"
        ) from None
    if info.type != "video":
        raise InputError(f"--codec: {codec} encodes {info.type}; expected a video encoder")
    # FFmpeg would write FFV1 into MP4, but hardly anything reads it there.
    unread = encoder == "ffv1" and container.format.name == "mp4"
    if unread or encoder not in container.supported_codecs:
        raise InputError(
            f"--codec: a {output.suffix} file cannot hold {codec or encoder}; use .mkv, or "
            "another --codec"
        )
    if crf is not None and encoder not in _WITH_CRF:
        raise InputError(f"--crf: {codec or encoder} has no rate factor; leave --crf out")
    if crf is not None and not 0 <= crf <= MAX_CRF:
        raise InputError(f"--crf: expected 0 (best) to {MAX_CRF} (worst), got {crf:g}")
    options = dict(_OPTIONS.get(encoder, {}))
    if encoder in _WITH_CRF:
        options["crf"] = f"{DEFAULT_CRF if crf is None else crf:g}"
    formats = [layout.name for layout in info.video_formats or ()]
    return Encoding(
        encoder, _pixel_format(encoder, formats, source_format, (width, height), pix_fmt), options
    )


def _default_encoder(output: Path, container: av.container.OutputContainer, deep: bool) -> str:
    pair = ("libvpx-vp9", "libsvtav1") if output.suffix == ".webm" else ("libx264", "libx265")
    held = container.supported_codecs
    for encoder in reversed(pair) if deep else pair:
        if encoder in held and encoder in av.codecs_available:
            return encoder
    return container.default_video_codec


def _pixel_format(
    encoder: str, formats: list[str], source: str, size: tuple[int, int], wanted: str | None
) -> str:
    if wanted is not None:
        if wanted not in formats:
            raise InputError(
                f"--pix-fmt: {encoder} does not encode {wanted}; expected one of "
                f"{', '.join(formats)}"
            )
        if not _divides(wanted, *size):
            raise InputError(
                f"--pix-fmt: {wanted} shares chroma between pixels and needs an even size, but "
                f"the video is {size[0]} x {size[1]}; use yuv444p or leave --pix-fmt out"
            )
        return wanted
    if encoder in ("libx264", "libx265"):
        formats = [name for name in formats if _divides(name, *size)]
    if not formats or source in formats:
        return source
    alpha = any(c.is_alpha for c in av.VideoFormat(source).components)
    best, _ = find_best_pix_fmt_of_list(formats, source, alpha)
    return best.name if best is not None else formats[0]


def _divides(pixel_format: str, width: int, height: int) -> bool:
    layout = av.VideoFormat(pixel_format)
    return not width % (16 // layout.chroma_width(16)) and not height % (
        16 // layout.chroma_height(16)
    )
