# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import cv2
import media
import numpy as np
import pytest

from vinpaint.video.shots import find_cuts


def shot(seed, count):
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 256, 3)
    for index in range(count):
        yield (0.5 * media.scene(index, 128, 72, seed) + 0.5 * color).astype(np.uint8)


def joined(lengths):
    return (image for seed, count in enumerate(lengths) for image in shot(seed, count))


@pytest.mark.parametrize("lengths", [[20, 30, 15], [8, 9, 8], [40, 1], [6, 30], [25, 2]])
def test_every_cut_is_found_at_its_frame(lengths):
    assert find_cuts(joined(lengths)) == np.cumsum(lengths)[:-1].tolist()


def test_motion_is_no_cut():
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(0, 256, (72, 2000, 3), dtype=np.uint8), (0, 0), 4)
    pan = [np.ascontiguousarray(wall[:, 12 * i : 12 * i + 128]) for i in range(60)]
    assert find_cuts(pan) == []


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_short_clips_have_no_cut(count):
    assert find_cuts(shot(0, count)) == []


def test_importing_the_video_layer_does_not_load_the_detector():
    code = "import sys, vinpaint.video; print('scenedetect' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert result.stdout.split() == ["False", "False"]
