# SPDX-License-Identifier: Apache-2.0
"""A program as a method of filling: folders of PNG frames and masks to a folder of PNG frames."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vinpaint.evaluation.data import Frames, Hole
from vinpaint.evaluation.holes import write_hole
from vinpaint.video.images import list_pictures, read_picture, write_png

LAUNCHER = Path(__file__).with_name("launch.py")


class Program:
    """A fill by a program.

    Args:
        words: the program and its arguments, with ``{frames}``, ``{masks}`` and ``{output}`` for the folders.

    Attributes:
        peak_memory: MiB, of the last call: the most that the largest of its processes had resident.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.peak_memory = math.nan

    def __call__(self, frames: Frames, hole: Hole) -> Frames:
        """Run it on frames (F, H, W, 3) and a hole (F, H, W). RuntimeError with what it said if it fails."""
        words = self.words
        with tempfile.TemporaryDirectory(prefix="vinpaint-") as temporary:
            folders = {name: Path(temporary, name) for name in ("frames", "masks", "output")}
            for folder in folders.values():
                folder.mkdir()
            for index, frame in enumerate(frames):
                write_png(folders["frames"] / f"{index:05d}.png", frame)
            write_hole(folders["masks"], hole)
            arguments = list(words)
            for name, folder in folders.items():
                arguments = [word.replace(f"{{{name}}}", str(folder)) for word in arguments]
            report = Path(temporary, "report.json")
            launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(report)]
            done = subprocess.run(
                [*launcher, *arguments], capture_output=True, text=True, check=True
            )
            found = json.loads(report.read_text())
            if "error" in found:
                raise RuntimeError(f"{words[0]} could not be run: {found['error']}")
            self.peak_memory = found["memory"]
            if found["code"] != 0:
                last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
                raise RuntimeError(f"{words[0]} ended with exit code {found['code']}: {last}")
            pictures = list_pictures(folders["output"], words[0])
            if len(pictures) != len(frames):
                raise RuntimeError(
                    f"{words[0]} wrote {len(pictures)} frames, expected {len(frames)} in {{output}}"
                )
            filled = [read_picture(picture, words[0]) for picture in pictures]
        for picture, image in zip(pictures, filled, strict=True):
            if image.shape != frames.shape[1:] or image.dtype != np.uint8:
                raise RuntimeError(
                    f"{words[0]} wrote {picture.name} as {image.dtype} {image.shape}, expected uint8 {frames.shape[1:]}"
                )
        return np.stack(filled)
