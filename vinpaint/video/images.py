# SPDX-License-Identifier: Apache-2.0
"""Single pictures and folders of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vinpaint.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vinpaint.video.color import Rgb

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp")


def eight_bit(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture of 8 or 16 bits a channel in 8: the same array, or the upper bytes."""
    return picture if picture.dtype == np.uint8 else (picture >> 8).astype(np.uint8)


def natural_key(path: Path) -> tuple[object, ...]:
    """Sorts ``frame2`` before ``frame10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def list_pictures(folder: Path, argument: str) -> list[Path]:
    """The pictures of a folder in natural order. Raises InputError if it holds none."""
    pictures = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    ]
    if not pictures:
        raise InputError(
            f"{argument}: the folder {folder} holds no pictures; "
            f"expected one {', '.join(EXTENSIONS)} file a frame"
        )
    return sorted(pictures, key=natural_key)


def read_picture(path: Path, argument: str) -> Rgb:
    """A picture, upright: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16.

    Palettes become RGB or RGBA, grey with alpha becomes RGBA. Raises InputError if the file
    is no picture or is cut short.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            if picture.mode.startswith("I") or _is_deep_png(path):
                return _read_deep(path)
            upright = ImageOps.exif_transpose(picture)
            if upright.mode == "1":
                upright = upright.convert("L")
            elif "A" in upright.mode or "transparency" in upright.info:
                upright = upright.convert("RGBA")
            elif upright.mode not in ("L", "RGB"):
                upright = upright.convert("RGB")
            return np.array(upright)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        raise InputError(
            f"{argument}: {path} cannot be read as a picture ({error}); expected a whole "
            f"{', '.join(EXTENSIONS)} file"
        ) from error


def write_png(path: Path, picture: Rgb) -> None:
    """Write (H, W), (H, W, 3) or (H, W, 4), uint8 or uint16, without loss."""
    if picture.ndim == 3:
        picture = picture[..., [2, 1, 0, 3][: picture.shape[2]]]
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise OSError(f"{path}: the picture could not be encoded as PNG")
    path.write_bytes(data.tobytes())


def _is_deep_png(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(25)
    return header[:8] == b"\x89PNG\r\n\x1a\n" and header[24] == 16


def _read_deep(path: Path) -> Rgb:
    """16-bit PNG: Pillow would halve its depth."""
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError("a 16-bit picture that is not understood")
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return np.ascontiguousarray(pixels)
