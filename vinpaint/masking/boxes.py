# SPDX-License-Identifier: Apache-2.0
"""Boxes over time from files: a CSV table, or the times of subtitles."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import av

from vinpaint.errors import InputError
from vinpaint.video.masks import BoxHole, Span, parse_box

COLUMNS = ("x", "y", "width", "height", "start", "end")


def read_boxes(path: str | Path) -> list[BoxHole]:
    """The boxes of a CSV file, a line each.

    Columns: x, y, width, height in pixels, and start, end as in :func:`vinpaint.video.masks.parse_span`,
    which may be missing or empty. A first line with these names puts them in another order.

    Raises:
        InputError: no such file, no CSV, no boxes, a name that is none of these, or a malformed box; the message names
            the line.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [(line, row) for line, row in enumerate(csv.reader(file), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"--boxes: {path} cannot be read as a CSV file: {error}") from error
    names: tuple[str, ...] = COLUMNS
    if rows and not rows[0][1][0].strip().lstrip("-").isdecimal():
        names = tuple(name.strip().lower() for name in rows.pop(0)[1])
        unknown = [name for name in names if name not in COLUMNS]
        if unknown or not set(COLUMNS[:4]) <= set(names):
            raise InputError(
                f"--boxes: expected columns named {', '.join(COLUMNS)}, the first four of them at least, got "
                f"{', '.join(names)} in {path}"
            )
    if not rows:
        raise InputError(f"--boxes: expected a line a box, found none in {path}")
    return [_box(dict(zip(names, row, strict=False)), f"{path}, line {line}") for line, row in rows]


def _box(cells: dict[str, str], where: str) -> BoxHole:
    x, y, width, height, start, end = (cells.get(name, "").strip() for name in COLUMNS)
    times = f"@{start}-{end}" if start or end else ""
    try:
        return parse_box(f"{x},{y},{width},{height}{times}")
    except InputError as error:
        reason = str(error).removeprefix("--box: ")
        raise InputError(f"--boxes: {where}: {reason}") from error


def read_subtitles(path: str | Path, area: BoxHole) -> list[BoxHole]:
    """``area``, a hole while a line of a subtitle file is shown.

    path: SubRip, WebVTT, ASS, or a video with subtitles in it (its first ones).

    Raises:
        InputError: no such file, or no subtitles in it.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.subtitles:
                raise InputError(
                    f"--subtitles: expected a file with subtitles, found none in {path}"
                )
            begin = _begin(container)
            spans = [
                Span(
                    float(packet.pts * packet.time_base) - begin,
                    float((packet.pts + packet.duration) * packet.time_base) - begin,
                )
                for packet in container.demux(subtitles=0)
                if packet.pts is not None
                and packet.duration
                and packet.time_base is not None
                and bytes(packet).strip(b"\0")  # MP4 fills the time between lines with empty ones
            ]
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or error
        raise InputError(f"--subtitles: {path} cannot be read as subtitles: {reason}") from error
    if not spans:
        raise InputError(f"--subtitles: expected lines with times, found none in {path}")
    return [replace(area, span=span) for span in spans]


def _begin(container: av.container.InputContainer) -> float:
    """The time of the first frame, if there are any: spans count from there."""
    for video in container.streams.video:
        if video.start_time is not None and video.time_base is not None:
            return float(video.start_time * video.time_base)
    return 0.0
