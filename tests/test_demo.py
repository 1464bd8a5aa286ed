# SPDX-License-Identifier: Apache-2.0
"""The bundled clip: the person is gone, and the lawn behind is the real one."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import cv2
import numpy as np

from vinpaint.demo import run_demo
from vinpaint.video.reader import open_clip


def _frames(path: Path) -> np.ndarray:
    return np.stack([frame.rgb for frame in open_clip(path, argument="clip").frames()])


def test_the_lawn_is_the_real_lawn(tmp_path: Path) -> None:
    clips = Path(str(resources.files("vinpaint") / "assets" / "demo"))
    before, person = _frames(clips / "walker.mp4"), _frames(clips / "walker-mask.mkv")[..., 0] > 127
    after = _frames(run_demo(tmp_path).output).astype(np.float32)
    # What stands behind, from the frames in which nobody stands there or near.
    near = np.stack([cv2.dilate(mask.astype(np.uint8), np.ones((25, 25))) > 0 for mask in person])
    behind = np.nanmedian(np.where(near[..., None], np.nan, before.astype(np.float32)), axis=0)
    red, green, blue = np.moveaxis(behind, -1, 0)
    lawn = (green > red + 4) & (green > blue + 15) & (green < 170)
    where = person & lawn
    assert where.sum() > 0.8 * person.sum()
    assert np.abs(before - behind)[where].mean() > 30
    assert np.abs(after - behind)[where].mean() < 3
