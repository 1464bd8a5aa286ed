# SPDX-License-Identifier: Apache-2.0
"""Tiny training runs, in this process or, as ``python training_runs.py CONFIG [SECONDS]``, in another."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import vinpaint
from vinpaint.nn import InpainterConfig
from vinpaint.training import (
    DataConfig,
    RunConfig,
    StageConfig,
    Stopped,
    TrainConfig,
    load_config,
    train,
)
from vinpaint.training.monitor import read_log
from vinpaint.training.options import to_toml

SIZE = 16


def write_shots(folder: Path) -> Path:
    """Eight shots of smooth moving stripes, 20 x 24 pixels."""
    folder.mkdir()
    t, y, x = np.ogrid[:12, :20, :24]
    for i in range(8):
        wave = 128 + 100 * np.sin(0.3 * x + 0.2 * y + 0.1 * t + i)
        np.save(folder / f"shot{i}.npy", np.repeat(wave[..., None], 3, axis=3).astype(np.uint8))
    return folder


def tiny(shots: Path, output: Path, *stages: StageConfig, **options: object) -> TrainConfig:
    """A run of the given stages, in the main process alone; ``options`` are the run's."""
    run = {"precision": "fp32", "workers": 0, "validate_every": 0, "ema": 0.9, **options}
    return TrainConfig(
        data=DataConfig(cache=str(shots), short_side=SIZE),
        model=InpainterConfig(width=0.125),
        run=RunConfig(output=str(output), **run),
        stages=stages or (tiny_stage(),),
    )


def tiny_stage(networks: str = "joint", steps: int = 2, **options: object) -> StageConfig:
    return StageConfig(networks=networks, steps=steps, **{"frames": 4, "size": SIZE, **options})


def in_folder(config: TrainConfig, output: Path) -> TrainConfig:
    """The same run somewhere else."""
    return replace(config, run=replace(config.run, output=str(output)))


def here() -> dict[str, str]:
    """The environment in which another process finds the same package."""
    return {
        **os.environ,
        "PYTHONPATH": str(Path(vinpaint.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }


def write_config(config: TrainConfig, path: Path) -> Path:
    path.write_text(to_toml(config))
    return path


def steps_of(run: Path) -> list[dict[str, float]]:
    """The rows of the log that are steps."""
    return [row for row in read_log(run / "log.jsonl") if "event" not in row]


def saved(run: Path) -> dict:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def assert_same(a: object, b: object, where: str = "") -> None:
    """Bit for bit, however nested."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def main(config: str, pause: str = "0") -> int:
    """Train with a pause after each step, so that another process has the time to end this one."""
    torch.set_num_threads(1)
    try:
        train(load_config(config), progress=lambda *_: time.sleep(float(pause)))
    except Stopped as stopped:
        return stopped.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
