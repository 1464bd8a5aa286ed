# SPDX-License-Identifier: Apache-2.0
"""A run that was killed, stopped or cut short goes on as if nothing had happened, or says why it cannot."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import training_runs
from media import write_video
from training_runs import (
    assert_same,
    here,
    in_folder,
    saved,
    steps_of,
    tiny,
    tiny_stage,
    write_config,
    write_shots,
)

from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig
from vinpaint.training import LossConfig, Stopped, TrainConfig, train
from vinpaint.training.checkpoint import read_checkpoint, write_checkpoint
from vinpaint.training.losses import Objective, Output

STEPS = 8

PAUSE = "0.3"
"""Seconds after a step in which it can be ended before the next."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As the processes have that are killed: another number may round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run over two stages that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    config = tiny(
        write_shots(folder / "shots"),
        folder / "run",
        tiny_stage("completion", 3, accumulate=2, warmup=2),
        tiny_stage("joint", 5, batch=2, comb_frames=3, schedule="cosine", freeze_stats_steps=1),
        save_every=2,
    )
    config = replace(config, losses=LossConfig(temporal=0.1, adversarial=0.1))
    train(config)
    return config


def _ended_early(config: TrainConfig, rows: int, how: signal.Signals) -> int:
    """Train in another process until its log has so many rows, then send a signal; the exit code."""
    output = Path(config.run.output)
    path = write_config(config, output.with_suffix(".toml"))
    command = [sys.executable, training_runs.__file__, str(path), PAUSE]
    with subprocess.Popen(command, env=here(), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while _rows(output) < rows and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    return process.returncode


def _rows(run: Path) -> int:
    log = run / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def _assert_as_if_undisturbed(run: TrainConfig, whole: TrainConfig) -> None:
    ours, theirs = saved(Path(run.run.output)), saved(Path(whole.run.output))
    for state in (ours, theirs):
        del state["seconds"], state["config"]
    assert_same(ours, theirs)
    rows, expected = steps_of(Path(run.run.output)), steps_of(Path(whole.run.output))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]


def test_a_killed_run_gives_the_weights_of_one_never_killed(
    whole: TrainConfig, tmp_path: Path
) -> None:
    run = in_folder(whole, tmp_path / "run")
    assert _ended_early(run, 2, signal.SIGKILL) == -signal.SIGKILL  # in the first stage
    assert _ended_early(run, 5, signal.SIGKILL) == -signal.SIGKILL  # in the second
    assert 4 <= saved(tmp_path / "run")["done"] < STEPS
    train(run)
    _assert_as_if_undisturbed(run, whole)


def test_signals_and_time_limits_save_and_stop(whole: TrainConfig, tmp_path: Path) -> None:
    run = in_folder(whole, tmp_path / "run")
    assert _ended_early(run, 1, signal.SIGTERM) == 143
    done = saved(tmp_path / "run")["done"]
    assert done == steps_of(tmp_path / "run")[-1]["step"] < STEPS
    with pytest.raises(Stopped, match=r"stopped by time limit after step \d+") as stopped:
        train(replace(run, run=replace(run.run, time_limit="0.0001s")))
    assert stopped.value.exit_code == 75
    assert done < stopped.value.step == saved(tmp_path / "run")["done"] < STEPS
    assert (tmp_path / "run" / "weights" / "model.safetensors").exists()
    train(run)
    _assert_as_if_undisturbed(run, whole)


@pytest.mark.parametrize("decoders", [1, 2])
def test_a_time_limit_ends_the_decoding_of_footage(decoders: int, tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    names = "abcdef"
    for name in names:
        write_video(footage / f"{name}.mp4", frames=6)
    run = tiny(
        tmp_path / "shots", tmp_path / "run", tiny_stage("completion", 1), time_limit="0.0001s"
    )
    data = replace(run.data, folders=(str(footage),), decoders=decoders)
    with pytest.raises(Stopped, match="stopped by time limit after step 0"):
        train(replace(run, data=data))
    assert 1 <= len([*(tmp_path / "shots").rglob("*.npy")]) < len(names)
    train(replace(run, data=data, run=replace(run.run, time_limit=None)))
    assert len([*(tmp_path / "shots").rglob("*.npy")]) == len(names)


def test_a_finished_run_has_nothing_left_to_do_and_may_be_made_longer(
    whole: TrainConfig, tmp_path: Path
) -> None:
    short = in_folder(replace(whole, stages=(tiny_stage("completion", 1),)), tmp_path / "run")
    train(short)
    first = saved(tmp_path / "run")
    train(short)
    assert_same(saved(tmp_path / "run"), first)
    longer = (replace(short.stages[0], steps=2), tiny_stage("joint", 1))
    train(replace(short, stages=longer))
    assert [row["stage"] for row in steps_of(tmp_path / "run")] == [0, 0, 1]


def test_other_options_are_refused_before_the_first_step(whole: TrainConfig) -> None:
    cases = [
        ({"run": replace(whole.run, seed=1)}, r"run\.seed \(0 there, 1 asked for\)"),
        ({"model": InpainterConfig(mode="2dcn")}, r"model\.mode \('combcn' there, '2dcn' asked"),
        ({"model": InpainterConfig(width=0.25)}, r"model\.width \(0\.125 there, 0\.25 asked"),
        ({"losses": LossConfig(temporal=0.2)}, r"losses\.adversarial \(0\.1 there, 0\.0 asked"),
        ({"data": replace(whole.data, short_side=20)}, r"data\.short_side"),
        ({"stages": (tiny_stage("joint", 3), whole.stages[1])}, r"stages\.0\.networks"),
        ({"stages": whole.stages[:1]}, r"stages \(2 begun, 1 asked for\)"),
    ]
    before = Path(whole.run.output, "log.jsonl").read_text()
    for changed, message in cases:
        if "model" in changed and changed["model"].mode == "2dcn":
            changed["stages"] = (whole.stages[1],)
        with pytest.raises(InputError, match=message):
            train(replace(whole, **changed))
    assert Path(whole.run.output, "log.jsonl").read_text() == before


def test_a_run_that_failed_goes_on_more_carefully(whole: TrainConfig, tmp_path: Path) -> None:
    run = in_folder(replace(whole, stages=whole.stages[:1]), tmp_path / "run")
    run = replace(run, run=replace(run.run, precision="fp16"))
    with pytest.raises(Stopped):
        train(replace(run, run=replace(run.run, time_limit="0.0001s")))
    done = saved(tmp_path / "run")["done"]
    careful = replace(run.stages[0], learning_rate=1e-5, clip_norm=1.0)
    train(replace(run, stages=(careful,), run=replace(run.run, precision="fp32")))
    rows = steps_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[done]["lr"] == 1e-5


def test_an_endless_gradient_leaves_the_checkpoint_before_to_go_on_from(
    whole: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = tiny_stage("joint", 6)
    run = in_folder(replace(whole, stages=(stage,)), tmp_path / "run")
    clip, steps = torch.nn.utils.clip_grad_norm_, []

    def endless_in_the_fourth(parameters: Iterator[torch.Tensor], longest: float) -> torch.Tensor:
        parameters = list(parameters)
        steps.append(len(steps) + 1)
        if steps[-1] == 4:
            parameters[0].grad[0, 0] = float("inf")
        return clip(parameters, longest)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", endless_in_the_fourth)
        with pytest.raises(FloatingPointError, match="the gradient of step 4 is no finite number"):
            train(run)
    state = saved(tmp_path / "run")
    assert state["done"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())
    careful = replace(run, stages=(replace(stage, learning_rate=1e-4),))
    model = train(careful)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    rows = steps_of(tmp_path / "run")
    assert [(row["step"], row["lr"]) for row in rows] == [
        *((step, 1e-3) for step in (1, 2)),
        *((step, 1e-4) for step in (3, 4, 5, 6)),
    ]


def test_an_endless_gradient_of_the_discriminator_is_not_saved_either(
    whole: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(objective: Objective, output: Output) -> torch.Tensor:
        loss = honest(objective, output)
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    honest = Objective.discriminator_loss
    monkeypatch.setattr(Objective, "discriminator_loss", endless)
    run = in_folder(replace(whole, stages=(tiny_stage("joint", 2),)), tmp_path / "run")
    with pytest.raises(FloatingPointError, match="discriminator's gradient of step 1 is no finite"):
        train(run)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_resume_insists_and_fresh_begins_anew(whole: TrainConfig, tmp_path: Path) -> None:
    run = in_folder(replace(whole, stages=(tiny_stage("completion", 1),)), tmp_path / "run")
    with pytest.raises(InputError, match=r"--resume: expected a checkpoint, found no .*checkpoint"):
        train(replace(run, run=replace(run.run, resume="must")))
    train(run)
    other = replace(run, run=replace(run.run, seed=5, resume="never"))
    train(other)
    assert [row["step"] for row in steps_of(tmp_path / "run")] == [1]
    assert saved(tmp_path / "run")["config"]["run"]["seed"] == 5


def test_fresh_keeps_the_run_before_until_all_was_checked(
    whole: TrainConfig, tmp_path: Path
) -> None:
    stages = (tiny_stage("completion", 3),)
    run = in_folder(replace(whole, stages=stages), tmp_path / "run")
    train(run)
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("checkpoint.pt", "log.jsonl")}
    never = replace(run.run, resume="never")
    for wrong in (
        replace(run, run=replace(never, init="nowhere")),
        replace(run, run=never, data=replace(run.data, folders=("nowhere",))),
        replace(run, run=never, stages=(tiny_stage("completion", 2, frames=99),)),
    ):
        with pytest.raises(InputError):
            train(wrong)
        assert {name: (tmp_path / "run" / name).read_bytes() for name in kept} == kept
    with pytest.raises(Stopped, match="after step 2; the same command without --fresh goes on"):
        train(replace(run, run=replace(never, time_limit="0.0001s")))
    assert [row["step"] for row in steps_of(tmp_path / "run")] == [1, 2]


def test_a_checkpoint_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"value": torch.ones(3)})

    def full(_state: object, file: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(path, {"value": torch.zeros(3)})
    assert torch.equal(read_checkpoint(path)["value"], torch.ones(3))


def test_damaged_and_foreign_checkpoints_are_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(InputError, match=r"found no .*checkpoint\.pt"):
        read_checkpoint(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged, or none of this version"):
        read_checkpoint(path)
    torch.save({"model": {}}, path)
    with pytest.raises(InputError, match="none of this version"):
        read_checkpoint(path)
