# SPDX-License-Identifier: Apache-2.0
"""Follow objects from their first frame on, and measure how well and how fast.

python benchmarks/follow.py DATA -o OUT.md

DATA holds a folder a clip: ``frames/`` or a video, beside ``masks/`` with a picture a frame, white on
the object. Beside OUT.md come a plot and a sheet of pictures. Masks are compared at the size at
which the object is followed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.masking.follow import follow
from vinpaint.video.images import eight_bit, list_pictures, read_picture
from vinpaint.video.reader import open_clip

SIZE = 480
"""Pixels on the long side that clips are followed at."""

SHOWN = 6
"""Frames of a clip on the sheet."""

CELL = 150
"""Height of a picture on the sheet, in pixels."""

TRUTH, FOUND = (0, 255, 0), (255, 0, 255)

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi")


@dataclass
class Result:
    """What came of a clip: its frames and masks from the first painted one on, and the IoU of each."""

    name: str
    frames: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    found: NDArray[np.bool_]
    scores: NDArray[np.float64]
    seconds: float

    @property
    def mean(self) -> float:
        """Over all frames but the painted one."""
        return float(self.scores[1:].mean())


def find_clips(data: Path) -> list[tuple[str, Path, Path]]:
    """Name, path and folder of masks of every clip. Raises InputError if there is none."""
    clips = []
    for folder in sorted(path for path in data.iterdir() if (path / "masks").is_dir()):
        videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS)
        if (folder / "frames").is_dir():
            clips.append((folder.name, folder / "frames", folder / "masks"))
        elif videos:
            clips.append((folder.name, videos[0], folder / "masks"))
    if not clips:
        raise InputError(
            f"DATA: expected folders with frames/ or a video beside masks/, got none in {data}"
        )
    return clips


def read_clip(path: Path, size: int) -> NDArray[np.uint8]:
    """Frames, uint8 (F, h, w, 3) RGB, at most ``size`` pixels on the long side."""
    clip = open_clip(path, argument="DATA")
    scale = min(1.0, size / max(clip.info.width, clip.info.height))
    pictures = clip.thumbnails(max(1, round(clip.info.width * scale)))
    return np.stack([picture.image[..., ::-1] for picture in pictures])


def read_masks(folder: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Masks, bool (F, h, w), brought to the frames' size."""
    masks = []
    for path in list_pictures(folder, "DATA"):
        picture = eight_bit(read_picture(path, "DATA"))
        gray = picture if picture.ndim == 2 else picture[..., :3].max(2)
        white = np.where(gray >= 128, np.float32(1), np.float32(0))
        masks.append(cv2.resize(white, shape[::-1], interpolation=cv2.INTER_AREA) >= 0.5)
    return np.stack(masks)


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def measure(name: str, path: Path, folder: Path, size: int) -> Result:
    frames = read_clip(path, size)
    truth = read_masks(folder, frames.shape[1:3])
    if len(truth) != len(frames):
        raise InputError(f"DATA: {name} has {len(frames)} frames, but {len(truth)} masks")
    first = int(truth.any((1, 2)).argmax())
    frames, truth = frames[first:], truth[first:]
    start = time.perf_counter()
    masks = follow(frames, {0: truth[0].astype(np.uint8)})
    seconds = (time.perf_counter() - start) / max(1, len(frames) - 1)
    found = np.stack(masks) > 0
    scores = np.array([overlap(a, b) for a, b in zip(truth, found, strict=True)])
    return Result(name, frames, truth, found, scores, seconds)


def table(results: list[Result]) -> str:
    """In Markdown."""
    lines = [
        "| clip | frames | size | mean IoU | last IoU | s a frame |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        count, height, width = result.frames.shape[:3]
        lines.append(
            f"| {result.name} | {count} | {width} x {height} | {result.mean:.3f} "
            f"| {result.scores[-1]:.3f} | {result.seconds:.3f} |"
        )
    mean, seconds = (
        np.mean([getattr(result, key) for result in results]) for key in ("mean", "seconds")
    )
    last = np.mean([result.scores[-1] for result in results])
    lines.append(f"| **mean** | | | **{mean:.3f}** | {last:.3f} | {seconds:.3f} |")
    return "\n".join(lines)


def plot(results: list[Result], file: Path) -> None:
    """IoU over frames, a line a clip."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
    for result in results:
        axis.plot(result.scores, label=f"{result.name} ({result.mean:.2f})")
    axis.set(xlabel="frames after the painted one", ylabel="IoU", ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
    figure.savefig(file, dpi=100)
    plt.close(figure)


def sheet(results: list[Result], file: Path) -> None:
    """Some frames of every clip: the true outline green, the found one pink."""
    rows = []
    for result in results:
        shown = np.linspace(0, len(result.frames) - 1, SHOWN).astype(int)
        rows.append(np.hstack([_outlined(result, index) for index in shown]))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    cv2.imwrite(str(file), np.ascontiguousarray(np.vstack(padded)[..., ::-1]))


def _outlined(result: Result, index: int) -> NDArray[np.uint8]:
    height, width = result.frames.shape[1:3]
    size = round(width * CELL * 2 / height), CELL * 2
    picture = cv2.resize(result.frames[index], size, interpolation=cv2.INTER_AREA)
    for mask, color in ((result.truth[index], TRUTH), (result.found[index], FOUND)):
        large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        lines, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, color, 2)
    label = f"{result.name} {index}: {result.scores[index]:.2f}"
    cv2.putText(picture, label, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 0), 1)
    small = cv2.resize(picture, (size[0] // 2, CELL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with a folder a clip")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.md")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels on the long side")
    options = parser.parse_args()
    results = []
    for clip in find_clips(options.data):
        results.append(measure(*clip, options.size))
        print(f"{clip[0]}: {results[-1].mean:.3f}, {results[-1].seconds:.3f} s a frame", flush=True)
    output: Path = options.output
    output.parent.mkdir(parents=True, exist_ok=True)
    curves, pictures = (output.with_name(f"{output.stem}-{what}.png") for what in ("iou", "sheet"))
    plot(results, curves)
    sheet(results, pictures)
    output.write_text(
        "# Following an object from its first frame\n\n"
        f"{table(results)}\n\n![IoU over frames]({curves.name})\n\n"
        f"![green: true outline, pink: found outline]({pictures.name})\n",
        encoding="utf-8",
    )
    print(table(results))


if __name__ == "__main__":
    main()
