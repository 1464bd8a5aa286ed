# SPDX-License-Identifier: Apache-2.0
"""Pictures for a first look at a result: a contact sheet, and two frames side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vinpaint.video.images import eight_bit

if TYPE_CHECKING:
    from pathlib import Path

    from vinpaint.video.color import Rgb
    from vinpaint.video.composite import Mask
    from vinpaint.video.reader import Frame

_WIDTH = 1600
_PICTURE = 386
_GAP = 8
_LINE = 26
_MIDDLE = 4
_TINT = np.array([255, 40, 80], np.float32)

Picture = npt.NDArray[np.uint8]


@dataclass
class _Row:
    label: str
    left: Picture
    right: Picture


class ContactSheet:
    """A few frames of a clip, evenly spread: the input with its hole beside the output."""

    def __init__(self, frame_count: int, rows: int = 8, *, right: str = "output") -> None:
        """Shows ``rows`` of the ``frame_count`` frames it is offered, the first and the last among them.

        ``right`` says what stands on the right.
        """
        self._right = right
        last = max(0, frame_count - 1)
        self._wanted = {round(i * last / max(1, rows - 1)) for i in range(rows)}
        self._offered = 0
        self._rows: list[_Row] = []

    def add(self, frame: Frame, output: Rgb, mask: Mask) -> None:
        """Offer a frame, its (H, W, 3) output and its (H, W) mask (not 0 in the hole)."""
        self._offered += 1
        if self._offered - 1 not in self._wanted:
            return
        label = f"frame {frame.index}    {frame.time:.2f} s"
        left = _small(marked(frame.rgb, mask), _PICTURE)
        self._rows.append(_Row(label, left, _small(output, _PICTURE)))

    def save(self, path: str | Path) -> None:
        """Write the sheet as a PNG. Raises ValueError without frames."""
        if not self._rows:
            raise ValueError("a contact sheet needs at least one frame; none was added")
        font = ImageFont.load_default(18)
        # Portrait clips would make a very long sheet.
        tallest = max(row.left.shape[0] for row in self._rows)
        picture_height = min(tallest, 330)
        width = max(row.left.shape[1] * picture_height // tallest for row in self._rows)
        columns = max(1, (_WIDTH - _GAP) // (2 * width + 2 * _GAP))
        lines = -(-len(self._rows) // columns)
        cell_width, cell_height = 2 * width + 2 * _GAP, picture_height + _LINE + _GAP
        sheet = Image.new(
            "RGB", (columns * cell_width + _GAP, _LINE + lines * cell_height + _GAP), (24, 24, 24)
        )
        draw = ImageDraw.Draw(sheet)
        for column in range(min(columns, len(self._rows))):
            x = _GAP + column * cell_width
            draw.text((x, 5), "input, hole marked", (235, 235, 235), font)
            draw.text((x + width + _GAP, 5), self._right, (235, 235, 235), font)
        for number, row in enumerate(self._rows):
            x = _GAP + number % columns * cell_width
            y = _LINE + number // columns * cell_height
            draw.text((x, y + 3), row.label, (160, 200, 255), font)
            for picture in (row.left, row.right):
                size = (width, picture_height)
                sheet.paste(Image.fromarray(picture).resize(size), (x, y + _LINE))
                x += width + _GAP
        sheet.save(path, "PNG")


def side_by_side(left: Rgb, right: Rgb) -> Picture:
    """Two (H, W, 3) pictures of one size beside each other, uint8, with even sides for video."""
    gap = np.zeros((left.shape[0], _MIDDLE, 3), np.uint8)
    both = np.concatenate([eight_bit(left), gap, eight_bit(right)], axis=1)
    width, height = side_by_side_size(left.shape[1], left.shape[0])
    missing = ((0, height - both.shape[0]), (0, width - both.shape[1]), (0, 0))
    return np.pad(both, missing, mode="edge")


def side_by_side_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of what :func:`side_by_side` makes of two pictures of this size."""
    both = 2 * width + _MIDDLE
    return both + both % 2, height + height % 2


def marked(rgb: Rgb, mask: Mask) -> Picture:
    """The picture, uint8 (H, W, 3), with the hole tinted and outlined."""
    picture = eight_bit(rgb).copy()
    hole = mask > 0
    picture[hole] = (0.55 * picture[hole] + 0.45 * _TINT).astype(np.uint8)
    contours, _ = cv2.findContours(hole.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (255, 255, 255), max(1, rgb.shape[1] // 400))
    return picture


def _small(rgb: Rgb, width: int) -> Picture:
    picture = eight_bit(rgb)
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    interpolation = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (width, height), interpolation=interpolation), np.uint8)
