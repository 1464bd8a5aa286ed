# SPDX-License-Identifier: Apache-2.0
"""What a hole is like: how much moves, how much of it another frame shows."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vinpaint.evaluation.conditions import Condition, condition_of
from vinpaint.evaluation.flow import TruthFlow
from vinpaint.evaluation.judge import ClipJudge, Judge
from vinpaint.evaluation.results import Results, Score


def _pan(frames: int, pixels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (14, 60, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (480, 80), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    views = [scene[:, pixels * t : pixels * t + 120] for t in range(frames)]
    return np.stack(views).astype(np.uint8)


@pytest.mark.parametrize(("pixels", "motion"), [(0, "static"), (3, "camera"), (8, "fast")])
def test_motion_is_the_length_of_the_flow(pixels: int, motion: str) -> None:
    hole = np.zeros((6, 80, 120), bool)
    hole[:, 30:50, 40:80] = True
    found = condition_of(TruthFlow(_pan(6, pixels)), hole)
    assert found.motion == motion
    assert found.pixels == pytest.approx(pixels, abs=0.3)
    # After five steps that many columns of forty have come out on either side: those of frame 0 and 5 on one
    # side only, the others on both.
    assert found.share == pytest.approx(min(5 * pixels, 40) / 40, abs=0.05)
    assert found.seen == {0: "seldom seen", 3: "partly seen", 8: "mostly seen"}[pixels]


def test_one_frame_shows_nothing_else() -> None:
    assert condition_of(None, np.ones((1, 8, 8), bool)) == Condition("static", "seldom seen", 0, 0)


def test_groups_are_what_tells_clips_apart() -> None:
    still, moving = (
        Condition("static", "mostly seen", 0.1, 0.9),
        Condition("fast", "mostly seen", 9.0, 0.8),
    )
    results = Results(
        clips=["a", "b", "c"],
        holes=["box"],
        methods=["m"],
        options={},
        versions={},
        scores=[
            Score(clip, "box", "m", {"l1": value})
            for clip, value in zip("abc", (1, 2, 6), strict=True)
        ],
        conditions={"box": {"a": still, "b": moving, "c": moving}},
    )
    assert results.groups("box") == {"static": ["a"], "fast": ["b", "c"]}
    assert results.among("box", ["b", "c"]).mean("box", "m")["l1"] == 4
    assert results.groups("object") == {}


def test_what_a_hole_is_like_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, hole = _pan(6, 3), np.zeros((6, 80, 120), bool)
    hole[:, 30:50, 40:80] = True
    judge = Judge(torch.device("cpu"), perceptual=False)
    found = ClipJudge(judge, truth).condition(hole, tmp_path / "kept.npz")
    assert found == condition_of(TruthFlow(truth), hole)
    monkeypatch.delattr("vinpaint.evaluation.judge.TruthFlow")  # no flow the second time
    assert ClipJudge(judge, truth).condition(hole, tmp_path / "kept.npz") == found
