# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: what each method made of a hole, in a few frames, below the truth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vinpaint.evaluation.data import Frames, Hole

_CELL = 320
_GAP = 6
_LABEL = 150
_HEAD = 24
_CONTEXT = 1.7
"""Width and height that are shown around a hole, as multiples of its own."""

_INK, _PAPER, _OUTLINE = (30, 30, 30), (255, 255, 255), (255, 40, 80)

Picture = NDArray[np.uint8]


class Sheet:
    """A column for three frames of a clip, a row for each method.

    Args:
        truth: the clip, uint8 (F, H, W, 3).
        hole: bool (F, H, W), somewhere ``True``.
    """

    def __init__(self, truth: Frames, hole: Hole) -> None:
        holed = np.flatnonzero(hole.any(axis=(1, 2)))
        self._shown = sorted({int(holed[len(holed) * part // 4]) for part in (1, 2, 3)})
        self._windows = _windows(hole[self._shown])
        whole = [_outlined(truth[i], hole[i]) for i in self._shown]
        self._rows: list[tuple[str, list[Picture]]] = [("frame, its hole outlined", whole)]
        self.add("truth", truth)

    def add(self, name: str, frames: Frames) -> None:
        """Add a row: the hole's neighbourhood in ``frames``, uint8 (F, H, W, 3)."""
        pairs = zip(self._shown, self._windows, strict=True)
        self._rows.append((name, [frames[i][window] for i, window in pairs]))

    def save(self, path: Path) -> None:
        """Write the sheet as a JPEG."""
        height, width = self._rows[0][1][0].shape[:2]
        cell = (_CELL, max(1, round(_CELL * height / width)))
        columns, rows = len(self._shown), len(self._rows)
        size = (
            _LABEL + columns * (_CELL + _GAP) + _GAP,
            _HEAD + rows * (cell[1] + _GAP) + _GAP,
        )
        sheet = Image.new("RGB", size, _PAPER)
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
        for column, index in enumerate(self._shown):
            draw.text((_LABEL + column * (_CELL + _GAP), 5), f"frame {index}", _INK, font)
        for row, (name, pictures) in enumerate(self._rows):
            y = _HEAD + row * (cell[1] + _GAP)
            draw.multiline_text((_GAP, y), _wrapped(name, font), _INK, font)
            for column, picture in enumerate(pictures):
                shown = Image.fromarray(picture).resize(cell, Image.Resampling.BICUBIC)
                sheet.paste(shown, (_LABEL + column * (_CELL + _GAP), y))
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "JPEG", quality=92, subsampling=0)


def _windows(holes: Hole) -> list[tuple[slice, slice]]:
    """For every plane of (N, H, W) the part of the frame around its hole; all of one size and the frame's shape."""
    height, width = holes.shape[1:]
    boxes = [cv2.boundingRect(hole.view(np.uint8)) for hole in holes]
    share = _CONTEXT * max(max(w / width, h / height) for _, _, w, h in boxes)
    size = [max(1, round(min(1.0, share) * side)) for side in (height, width)]
    windows = []
    for x, y, w, h in boxes:
        top = min(max(0, y + h // 2 - size[0] // 2), height - size[0])
        left = min(max(0, x + w // 2 - size[1] // 2), width - size[1])
        windows.append((slice(top, top + size[0]), slice(left, left + size[1])))
    return windows


def _outlined(frame: Picture, hole: NDArray[np.bool_]) -> Picture:
    picture = frame.copy()
    contours, _ = cv2.findContours(hole.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _OUTLINE, max(1, round(frame.shape[1] / _CELL * 2)))
    return picture


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """``text`` with line breaks, so that it fits beside a row; a word that is too long is cut."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _LABEL - 2 * _GAP:
            lines[-1] = longer
            continue
        length = len(word)
        while font.getlength(word[:length]) > _LABEL - 2 * _GAP:
            length -= 1
        lines.append(word[:length])
    return "\n".join(line for line in lines if line)
