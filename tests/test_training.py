# SPDX-License-Identifier: Apache-2.0
"""The loop: resumable, learning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vinpaint.errors import InputError
from vinpaint.pretrained import load_pretrained
from vinpaint.training import TrainConfig, train

SIZE = 16


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Two shots of smooth moving stripes, 20 x 24 pixels."""
    folder = tmp_path / "shots"
    folder.mkdir()
    t, y, x = np.ogrid[:12, :20, :24]
    for i, phase in enumerate((0.0, 1.0)):
        wave = 128 + 100 * np.sin(0.3 * x + 0.2 * y + 0.1 * t + phase)
        np.save(folder / f"{i}.npy", np.repeat(wave[..., None], 3, axis=3).astype(np.uint8))
    return folder


def _config(shots: Path, output: Path) -> TrainConfig:
    return TrainConfig(
        data=str(shots),
        output=str(output),
        steps=4,
        frames=4,
        size=SIZE,
        precision="fp32",
        workers=0,
        save_every=2,
    )


def _log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_resumed_run_gives_the_weights_of_one_never_stopped(shots: Path, tmp_path: Path) -> None:
    config = _config(shots, tmp_path / "whole")
    whole = train(config)
    train(replace(config, output=str(tmp_path / "halved"), steps=2))
    resumed = train(replace(config, output=str(tmp_path / "halved")))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [row["step"] for row in _log(tmp_path / "halved")] == [1, 2, 3, 4]
    assert load_pretrained(tmp_path / "halved" / "weights").config == whole.config


def test_a_run_is_not_resumed_with_other_options(shots: Path, tmp_path: Path) -> None:
    config = replace(_config(shots, tmp_path / "run"), stage="completion", steps=1)
    train(config)
    with pytest.raises(InputError, match=r"seed: .* was made with 0, got 1"):
        train(replace(config, seed=1, steps=2))


def test_the_mean_pixel_is_the_datas_or_the_checkpoints(shots: Path, tmp_path: Path) -> None:
    config = replace(_config(shots, tmp_path / "run"), stage="completion", steps=1)
    mean = train(config).config.mean
    expected = np.mean([np.load(path).mean() for path in shots.glob("*.npy")]) / 255
    assert mean == pytest.approx((expected,) * 3, abs=0.03)
    darker = tmp_path / "darker"
    darker.mkdir()
    for path in shots.glob("*.npy"):
        np.save(darker / path.name, np.load(path) // 4)
    init = str(tmp_path / "run" / "checkpoint.pt")
    other = train(replace(config, data=str(darker), output=str(tmp_path / "next"), init=init))
    assert other.config.mean == mean


def test_the_completion_stage_leaves_combcn_alone_and_learns(shots: Path, tmp_path: Path) -> None:
    config = replace(_config(shots, tmp_path / "run"), stage="completion", steps=25)
    start = train(replace(config, output=str(tmp_path / "start"), steps=1)).state_dict()
    model = train(config)
    rows = _log(tmp_path / "run")
    losses = [row["l1_3dcn"] for row in rows]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert "l1_combcn" not in rows[0]
    assert torch.equal(model.state_dict()["comb.conv1.weight"], start["comb.conv1.weight"])


def test_joint_training_starts_from_the_stage_before(shots: Path, tmp_path: Path) -> None:
    config = replace(_config(shots, tmp_path / "first"), stage="completion", steps=2)
    first = train(config)
    joint = replace(
        config,
        stage="joint",
        output=str(tmp_path / "joint"),
        init=str(tmp_path / "first" / "checkpoint.pt"),
        learning_rate=0.0,
        comb_frames=2,
        decay_steps=2,
        freeze_stats_steps=2,
        precision="bf16",
    )
    model = train(joint)
    for name, value in first.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert "l1_combcn" in _log(tmp_path / "joint")[0]
