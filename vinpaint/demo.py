# SPDX-License-Identifier: Apache-2.0
"""The bundled clip, filled: the first thing to try after installing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from vinpaint.files import inpaint_video
from vinpaint.inpainting import Inpainter


class DemoFiles(NamedTuple):
    """What the demo wrote."""

    output: Path
    compare: Path
    preview: Path


def run_demo(
    folder: Path,
    inpainter: Inpainter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DemoFiles:
    """Remove the walking person from the bundled clip; files of an earlier run are replaced."""
    clips = Path(str(resources.files("vinpaint") / "assets" / "demo"))
    folder.mkdir(parents=True, exist_ok=True)
    files = DemoFiles(folder / "walker.mp4", folder / "walker-compare.mp4", folder / "walker.png")
    inpaint_video(
        clips / "walker.mp4",
        files.output,
        mask=clips / "walker-mask.mkv",
        inpainter=inpainter,
        overwrite=True,
        preview=files.preview,
        compare=files.compare,
        progress=progress,
    )
    return files
