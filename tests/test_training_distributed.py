# SPDX-License-Identifier: Apache-2.0
"""Two processes train what one does with twice the micro-batches."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_runs
from training_runs import here, saved, steps_of, tiny, tiny_stage, write_config, write_shots

from vinpaint.training import train
from vinpaint.training.monitor import read_log


def _stages(parts: int) -> list:
    """Two of the three with as many micro-batches a process as asked for, the last with twice as many."""
    common = {"comb_frames": 2, "clip_norm": 500.0}
    return [
        tiny_stage("completion", 2, accumulate=parts, **common),
        tiny_stage("joint", 2, accumulate=parts, **common),
        tiny_stage("comb", 1, accumulate=2 * parts, learning_rate=1e-4, **common),
    ]


def _train_in_two_processes(config: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    surroundings = {
        **here(),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, training_runs.__file__, str(config)],
            env={**surroundings, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_two_processes_equal_one_with_twice_the_parts(tmp_path: Path) -> None:
    shots = write_shots(tmp_path / "shots")
    validation = {"validate_every": 5, "validation_clips": 1}  # the second process has none
    train(tiny(shots, tmp_path / "one", *_stages(2), **validation))
    two = tiny(shots, tmp_path / "two", *_stages(1), **validation)
    _train_in_two_processes(write_config(two, tmp_path / "two.toml"))
    pairs = list(zip(steps_of(tmp_path / "one"), steps_of(tmp_path / "two"), strict=True))
    for ours, theirs in pairs:
        # With two parts a step the sums are the same bit for bit, with four in another order.
        exact = ours["step"] < 5
        for name in ("loss", "l1_3dcn", "grad_norm", "lr"):
            expected = ours[name] if exact else pytest.approx(ours[name], rel=1e-5)
            assert theirs[name] == expected, (ours["step"], name)
    held_out = [_validations(tmp_path / run) for run in ("one", "two")]
    for ours, theirs in zip(*held_out, strict=True):
        for name in ours.keys() & {"l1_3dcn", "l1_combcn"}:
            assert theirs[name] == pytest.approx(ours[name], rel=1e-3)
    assert len(held_out[0]) == 3
    one_state, two_state = saved(tmp_path / "one"), saved(tmp_path / "two")
    assert one_state["samples"] == two_state["samples"] == 4 * 2 + 4
    assert_close(one_state["model"], two_state["model"])
    assert_close(one_state["average"]["model"], two_state["average"]["model"])


def _validations(run: Path) -> list[dict]:
    return [row for row in read_log(run / "log.jsonl") if row.get("event") == "validation"]


def assert_close(ours: dict, theirs: dict) -> None:
    for name, value in ours.items():
        # Adam may take a rounding error of a gradient near 0 for a step of the learning rate.
        assert torch.allclose(value, theirs[name], rtol=1e-5, atol=2e-4), name
