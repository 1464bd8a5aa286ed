# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of the gallery from the clip and the weights that ship with vinpaint.

Run it from outside the source folder: ``python SOURCES/docs/tools/gallery.py``. It fills the clip several times, minutes on two
cores; with names, such as ``dilate``, only these sheets. ``--check`` says whether the pictures are of the clip and the weights that are there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pages" / "pictures"
ASSETS = ROOT / "vinpaint" / "assets"
RECORD = FOLDER / "gallery.json"

CLIP, MASK = ASSETS / "demo" / "walker.mp4", ASSETS / "demo" / "walker-mask.mkv"

SHOWN = (8, 30, 52)
"""Frames on the sheets."""

LINE, GAP = 22, 6
MOST_BYTES = 300_000

Picture = Any  # uint8 (h, w, 3)


def digest() -> str:
    """Of the clip, its mask and the weights."""
    files = [CLIP, MASK, *sorted((ASSETS / "weights").rglob("*.safetensors"))]
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()


def sheet(name: str, heads: Sequence[str], rows: Sequence[Sequence[Picture]], scale: int) -> None:
    """Pictures in rows under heads, as a JPEG file."""
    height, width = rows[0][0].shape[:2]
    height, width = height * scale, width * scale
    size = (
        len(heads) * (width + GAP) - GAP,
        LINE + len(rows) * (height + GAP) - GAP,
    )
    whole = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(14)
    for column, head in enumerate(heads):
        pen.text((column * (width + GAP) + 2, 2), head, fill="black", font=font)
        for row, pictures in enumerate(rows):
            picture = Image.fromarray(pictures[column]).resize(
                (width, height), Image.Resampling.LANCZOS
            )
            whole.paste(picture, (column * (width + GAP), LINE + row * (height + GAP)))
    path = FOLDER / f"gallery-{name}.jpg"
    for quality in (90, 80, 70, 60):
        whole.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return


def draw(wanted: Sequence[str] = ()) -> None:
    """Fill the clip in every way and draw the sheets; or those that are named."""
    import cv2

    from vinpaint.inpainting import Inpainter
    from vinpaint.video import open_clip, open_mask
    from vinpaint.video.masks import dilated
    from vinpaint.video.preview import marked

    clip = open_clip(CLIP)
    frames = np.stack([frame.rgb for frame in clip.frames()])

    def holes(mask: Any, dilate: int) -> Any:
        return np.stack([m for _, m in open_mask(mask, clip, dilate=dilate).pair(clip.frames())])

    @cache
    def inpainter(weights: str = "combcn", propagate: Any = "auto") -> Inpainter:
        return Inpainter.from_pretrained(weights, propagate=propagate)

    outline = holes(MASK, 4)
    # Where the walkers are at some time: one box for the whole clip.
    y, x = np.nonzero(outline.any(0))
    left, top = int(x.min()), int(y.min())
    box = f"{left},{top},{int(x.max()) - left + 1},{int(y.max()) - top + 1}"
    boxes = holes([box], 0)
    # The clip's own mask is wide already: one as masks often are.
    tight = np.stack([cv2.erode(hole, np.ones((9, 9), np.uint8)) for hole in holes(MASK, 0)])
    grown = np.stack([dilated(hole, 4) for hole in tight])
    filled = cache(lambda: inpainter()(frames, outline))

    def part(hole: Any, index: int) -> tuple[slice, slice]:
        """The surroundings of the hole in a frame."""
        height, width = 96, 112
        rows, columns = np.nonzero(hole[index])
        y = max(0, min(int(rows.mean()) - height // 2, hole.shape[1] - height))
        x = max(0, min(int(columns.mean()) - width // 2, hole.shape[2] - width))
        return slice(y, y + height), slice(x, x + width)

    def compared(name: str, heads: Sequence[str], *clips: Any, hole: Any = outline) -> None:
        rows = []
        for index in SHOWN[:2]:
            around = part(hole, index)
            before = marked(frames[index], hole[index])[around]
            rows.append([before, *(c[index][around] for c in clips)])
        sheet(name, heads, rows, 3)

    def contact_sheet() -> None:
        rows = [[marked(frames[i], outline[i]), filled()[i]] for i in SHOWN]
        sheet("contact-sheet", ["the hole", "filled"], rows, 2)

    def propagation() -> None:
        alone = inpainter(propagate="off")(frames, outline)
        heads = ["the hole", "--propagate auto", "--propagate off"]
        compared("propagation", heads, filled(), alone)

    def dilate() -> None:
        clips = [inpainter()(frames, hole) for hole in (tight, grown)]
        compared("dilate", ["a tight mask", "--dilate 0", "--dilate 4"], *clips, hole=tight)

    def weights() -> None:
        narrow = inpainter("combcn-s")(frames, outline)
        heads = ["the hole", "--weights combcn", "--weights combcn-s"]
        compared("weights", heads, filled(), narrow)

    def one_box() -> None:
        boxed = inpainter()(frames, boxes)
        rows = [
            [marked(frames[i], outline[i]), filled()[i], marked(frames[i], boxes[i]), boxed[i]]
            for i in SHOWN[:2]
        ]
        sheet("box", ["the outline", "filled", "one box, all the time", "filled"], rows, 1)

    sheets = {
        "contact-sheet": contact_sheet,
        "propagation": propagation,
        "dilate": dilate,
        "weights": weights,
        "box": one_box,
    }
    for name, drawn in sheets.items():
        if not wanted or name in wanted:
            drawn()
    if not wanted:
        RECORD.write_text(json.dumps({"of": digest(), "box": box}) + "\n")


def main(arguments: list[str]) -> int:
    """Draw, or with --check only look."""
    if arguments == ["--check"]:
        return int(not RECORD.exists() or json.loads(RECORD.read_text())["of"] != digest())
    draw(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
