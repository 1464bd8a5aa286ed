# SPDX-License-Identifier: Apache-2.0
"""What the loop trains, and what it writes while it does."""

from __future__ import annotations

import builtins
import inspect
import logging
import re
import textwrap
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from media import scene, write_video
from torch.nn import functional as F
from training_runs import SIZE, in_folder, saved, steps_of, tiny, tiny_stage, write_shots

from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.nn.layers import ConvBNReLU
from vinpaint.pretrained import load_pretrained, save_pretrained
from vinpaint.training import StageConfig, TrainConfig, load_config, train
from vinpaint.training.monitor import (
    Log,
    ProgressBar,
    picture_rows,
    plot_losses,
    read_log,
    say_on_terminal,
)
from vinpaint.training.networks import Batch, Networks
from vinpaint.training.options import plain


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shots(tmp_path_factory.mktemp("data") / "shots")


@pytest.fixture
def make(shots: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """``make(*stages, **options)``: a tiny run in ``tmp_path / "run"``."""
    return lambda *stages, **options: tiny(shots, tmp_path / "run", *stages, **options)


def _changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    """Which of the networks' learned tensors differ: ``completion``, ``comb``; statistics apart."""
    return {
        name.partition(".")[0] + (" statistics" if "running" in name else "")
        for name, value in before.items()
        if not torch.equal(value, after[name])
    }


def test_each_stage_trains_its_networks_and_no_other(make: Callable, tmp_path: Path) -> None:
    expected = {
        "completion": {"completion", "completion statistics"},
        "comb": {"comb", "comb statistics"},
        "joint": {"completion", "completion statistics", "comb", "comb statistics"},
    }
    config = make(tiny_stage("completion", 1), save_every=1)
    train(config)
    for name, changed in expected.items():
        before = saved(tmp_path / "run")["model"]
        config = replace(config, stages=(*config.stages, tiny_stage(name, 1)))
        train(config)
        assert _changed(before, saved(tmp_path / "run")["model"]) == changed, name


def test_training_learns_and_its_weights_are_the_average(make: Callable, tmp_path: Path) -> None:
    config = make(tiny_stage("joint", 30, batch=2, comb_frames=2), ema=0.5)
    model = train(config)
    assert not model.training
    rows = steps_of(tmp_path / "run")
    for name in ("l1_3dcn", "l1_combcn"):
        losses = [row[name] for row in rows]
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), name
    state = saved(tmp_path / "run")
    written = load_pretrained(tmp_path / "run" / "weights")
    assert written.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(value, state["average"]["model"][name])
        assert torch.allclose(value, written.state_dict()[name], rtol=1e-3, atol=1e-6), name
    assert _changed(state["model"], model.state_dict())


def test_the_average_follows_with_a_warm_up(make: Callable, tmp_path: Path) -> None:
    weights = []

    def keep(_done: int, _total: int, _figures: object) -> None:
        if (tmp_path / "run" / "checkpoint.pt").exists():
            weights.append(saved(tmp_path / "run"))

    train(make(tiny_stage("completion", 4), ema=0.999, save_every=1), progress=keep)
    weights.append(saved(tmp_path / "run"))
    name = "completion.conv2.weight"
    expected = weights[0]["model"][name]  # the first step's weights begin the average
    for told, state in enumerate(weights[1:], 1):
        decay = (1 + told) / (10 + told)
        expected = decay * expected + (1 - decay) * state["model"][name]
        assert torch.allclose(state["average"]["model"][name], expected, rtol=1e-4, atol=1e-7), told
        assert state["average"]["told"] == told + 1


def test_running_statistics_are_the_mean_over_the_parts(make: Callable, tmp_path: Path) -> None:
    def statistics(output: str, **options: object) -> torch.Tensor:
        stage = tiny_stage("completion", 1, learning_rate=0.0, **options)
        return train(in_folder(make(stage, ema=0.0), tmp_path / output)).state_dict()[
            "completion.conv1.running_mean"
        ]

    # Of clips of one size a layer's mean is the mean of the parts' means, however they are cut.
    whole, parts = statistics("whole", batch=4), statistics("parts", accumulate=4)
    assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-6)
    assert whole.abs().max() > 0.01


def test_frozen_statistics_stay(make: Callable, tmp_path: Path) -> None:
    stage = tiny_stage("joint", 2, freeze_stats_steps=2, schedule="linear")
    model = train(make(stage, ema=0.0))
    layers = [module for module in model.modules() if isinstance(module, ConvBNReLU)]
    assert layers
    assert all(torch.equal(m.running_mean, torch.zeros_like(m.running_mean)) for m in layers)
    assert [row["lr"] for row in steps_of(tmp_path / "run")] == [1e-3, 5e-4]


def test_gradients_are_clipped_and_logged(make: Callable, tmp_path: Path) -> None:
    free, clipped = tiny_stage("completion", 1), tiny_stage("completion", 1, clip_norm=1e-9)
    train(make(free, ema=0.0))
    other = in_folder(make(clipped, ema=0.0), tmp_path / "clipped")
    train(other)
    (row,), (same) = steps_of(tmp_path / "run"), steps_of(tmp_path / "clipped")
    assert row["grad_norm"] == same[0]["grad_norm"] > 1
    moved = saved(tmp_path / "run")["optimizer"]["state"]
    little = saved(tmp_path / "clipped")["optimizer"]["state"]
    for index, moments in moved.items():
        ratio = 1e-9 / row["grad_norm"]
        expected = moments["exp_avg"] * ratio
        assert torch.allclose(little[index]["exp_avg"], expected, rtol=1e-2, atol=1e-14)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_short_precisions_train(make: Callable, tmp_path: Path, precision: str) -> None:
    """fp16 leaves out its first steps, in which the scale of the gradients falls until they fit."""
    config = make(tiny_stage("joint", 12, frames=4, clip_norm=1e4), precision=precision)
    train(config)
    rows = steps_of(tmp_path / "run")
    assert len(rows) == 12
    assert all(row["grad_norm"] > 0 for row in rows[-3:])
    state = saved(tmp_path / "run")
    assert bool(state["scaler"]) == (precision == "fp16")
    moments = state["optimizer"]["state"].values()
    assert len(moments) == len(list(VideoInpainter(config.model).parameters()))
    assert all(3 <= each["step"] <= 12 and each["exp_avg"].any() for each in moments)
    _assert_sound(state["model"])


def _assert_sound(weights: Mapping[str, torch.Tensor]) -> None:
    assert [name for name, value in weights.items() if not value.isfinite().all()] == []


def _assert_all_moved(config: TrainConfig, steps: int) -> None:
    """Train as many steps, without an average; every parameter then differs from where it began."""
    still = replace(config, stages=(replace(config.stages[0], learning_rate=0.0),))
    start = train(in_folder(still, Path(config.run.output + "-still")))
    config = replace(config, stages=(replace(config.stages[0], steps=steps),))
    trained = dict(train(config).named_parameters())
    _assert_sound(trained)
    resting = [n for n, value in start.named_parameters() if torch.equal(value, trained[n])]
    assert resting == []


def test_a_2dcn_trains(make: Callable, tmp_path: Path) -> None:
    config = make(tiny_stage("joint", 1), ema=0.0)
    config = replace(config, model=InpainterConfig(mode="2dcn", width=0.125))
    _assert_all_moved(config, 1)
    (row,) = steps_of(tmp_path / "run")
    assert "l1_3dcn" not in row
    assert "l1_combcn" in row


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"reduction": 4}, 1),
        ({"prefill": "carried", "confidence": True}, 2),
        ({"prefill": "smooth"}, 2),  # the first only reaches the last layers, which begin at zero
        ({"temporal_stride": True}, 1),
    ],
)
def test_every_kind_of_model_trains(make: Callable, options: dict, steps: int) -> None:
    config = make(tiny_stage("joint", 1), ema=0.0)
    config = replace(config, model=InpainterConfig(width=0.125, **options))
    _assert_all_moved(config, steps)


@pytest.mark.parametrize("prefill", ["mean", "smooth", "carried"])
def test_networks_learn_the_truth_from_what_was_carried(prefill: str) -> None:
    torch.manual_seed(0)
    frames, given = torch.rand(2, 1, 3, 4, SIZE, SIZE)
    unknown = torch.zeros(1, 1, 4, SIZE, SIZE)
    unknown[..., 4:12, 4:8], unknown[..., 4:12, 8:12] = 1, 0.25
    given = torch.where(unknown == 0.25, given, frames)
    model = VideoInpainter(InpainterConfig(prefill=prefill, width=0.125))
    networks = Networks(model, StageConfig(frames=4, size=SIZE))
    output = networks(Batch(frames, unknown, given), torch.tensor([1, 2]))
    assert torch.equal(output.frames, frames[:, :, 1:3])
    wanted = unknown > 0 if prefill == "carried" else unknown == 1
    assert torch.equal(output.mask > 0, wanted[:, :, 1:3])
    whole_blocks = wanted[..., ::2, ::2]  # the hole begins and ends on even rows and columns
    assert torch.equal(output.small_mask > 0, whole_blocks)
    known = torch.where(wanted, 0, frames)
    torch.testing.assert_close(output.small * ~whole_blocks, F.avg_pool3d(known, (1, 2, 2)))
    # What the networks saw, they saw with the carried pixels in.
    model.eval()
    seen = unknown if prefill == "carried" else wanted.float()
    completed, coarse = model(given, seen)
    output = networks(Batch(frames, unknown, given), torch.arange(4))
    assert output.completed is not None
    torch.testing.assert_close(output.completed, completed)
    torch.testing.assert_close(output.coarse, coarse)


def test_a_run_learns_from_samples_with_carried_pixels(make: Callable) -> None:
    config = make(tiny_stage("joint", 1), ema=0.0)
    model = InpainterConfig(width=0.125, prefill="carried")
    config = replace(config, model=model, data=replace(config.data, carried=0.5))
    _assert_all_moved(config, 2)


def test_validation_is_always_of_the_same_clips(make: Callable, tmp_path: Path) -> None:
    stage = tiny_stage("joint", 4, learning_rate=0.0, freeze_stats_steps=4)
    train(make(stage, validate_every=2, validation_clips=3))
    first, second = (r for r in read_log(tmp_path / "run" / "log.jsonl") if "event" in r)
    assert first["step"] == 2
    assert second["step"] == 4
    for name in ("l1_3dcn", "l1_combcn"):
        assert first[name] == second[name] > 0


def test_without_held_out_clips_a_run_says_so_and_goes_on(
    make: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    config = make(tiny_stage("completion", 2), validate_every=1)
    config = replace(config, data=replace(config.data, validation_share=0.0))
    train(config)
    (message,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert message.startswith("no validation in stage 0: ")


def test_the_mean_pixel_is_the_datas_the_models_or_the_inits(
    make: Callable, tmp_path: Path
) -> None:
    config = make(tiny_stage("completion", 1))
    measured = train(config).config.mean
    assert measured == pytest.approx((0.5, 0.5, 0.5), abs=0.06)
    assert measured != (0.5, 0.5, 0.5)
    chosen = InpainterConfig(mean=(0.1, 0.2, 0.3), width=0.125)
    other = replace(config, model=chosen, run=replace(config.run, mean="model", resume="never"))
    assert train(other).config.mean == chosen.mean
    init = replace(config.run, output=str(tmp_path / "third"), init=str(tmp_path / "run"))
    assert train(replace(config, run=init)).config.mean == chosen.mean


def test_a_run_starts_from_weights_and_says_what_they_lack(
    make: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(9)
    start = VideoInpainter(InpainterConfig(mode="2dcn", width=0.125, mean=(0.2, 0.3, 0.4)))
    save_pretrained(start, tmp_path / "start")
    config = make(tiny_stage("joint", 1, learning_rate=0.0), init=str(tmp_path / "start"), ema=0.0)
    with pytest.raises(
        InputError, match=r"other options: model\.mode \('2dcn' there, 'combcn' asked for\); set"
    ):
        train(config)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    model = train(replace(config, run=replace(config.run, strict=False)))
    assert model.config.mean == (0.2, 0.3, 0.4)
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any("model.mode ('2dcn' there, 'combcn' asked for)" in line for line in told)
    assert any("comb.guide2.weight (missing there)" in line for line in told)
    assert not any("comb.conv4.weight" in line for line in told)
    expected = start.state_dict()["comb.conv4.weight"].half().float()
    assert torch.equal(model.state_dict()["comb.conv4.weight"], expected)
    with pytest.raises(InputError, match="found no nowhere"):
        train(replace(config, run=replace(config.run, init="nowhere", resume="never")))


@pytest.mark.parametrize("there", ["weights", "checkpoint"])
def test_weights_that_meant_something_else_are_refused(
    make: Callable, tmp_path: Path, there: str
) -> None:
    config = make(tiny_stage("joint", 1))
    train(config)
    start = tmp_path / "run" / {"weights": "weights", "checkpoint": "checkpoint.pt"}[there]
    options = {"prefill": "smooth", "temporal_stride": True, "composite_guidance": False}
    other = in_folder(
        replace(config, model=InpainterConfig(width=0.125, **options)), tmp_path / "other"
    )
    other = replace(other, run=replace(other.run, init=str(start)))
    with pytest.raises(InputError, match=r"init: .* was trained with other options: ") as refused:
        train(other)
    assert [name for name in plain(other.model) if f"model.{name} (" in str(refused.value)] == [
        "composite_guidance",
        "prefill",
        "temporal_stride",
    ]
    assert not (tmp_path / "other").exists()


def test_a_checkpoint_that_lacks_weights_is_named(make: Callable, tmp_path: Path) -> None:
    config = make(tiny_stage("completion", 1))
    train(config)
    state = saved(tmp_path / "run")
    del state["model"]["comb.conv4.weight"], state["average"]
    torch.save({**state, "average": None}, tmp_path / "lacking.pt")
    run = replace(config.run, init=str(tmp_path / "lacking.pt"), output=str(tmp_path / "other"))
    with pytest.raises(
        InputError, match=r"init: 1 weights of .* first comb\.conv4\.weight \(missing"
    ):
        train(replace(config, run=run))


def test_shipped_weights_are_taken_by_name(make: Callable) -> None:
    shipped = load_pretrained("combcn")
    config = make(tiny_stage("completion", 1, learning_rate=0.0), init="combcn", ema=0.0)
    model = train(replace(config, model=replace(shipped.config, mean=InpainterConfig().mean)))
    assert model.config == shipped.config
    weights = shipped.state_dict()
    assert all(
        torch.equal(value, weights[name])
        for name, value in model.state_dict().items()
        if "running" not in name
    )


def test_no_data_is_said_before_the_first_step(make: Callable, tmp_path: Path) -> None:
    stages = (tiny_stage("completion", 1), tiny_stage("joint", 1, frames=13))
    with pytest.raises(InputError, match=r"shots? of at least 13 frames"):
        train(make(*stages))
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_loss_that_is_no_number_ends_the_run_unsaved(make: Callable, tmp_path: Path) -> None:
    config = make(tiny_stage("completion", 6, learning_rate=1e30), save_every=3)
    with pytest.raises(FloatingPointError, match=r"the loss of step \d is no finite number; go on"):
        train(config)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_samples_come_from_other_processes_too(make: Callable, tmp_path: Path) -> None:
    config = make(tiny_stage("completion", 2), workers=0)
    train(config)
    other = in_folder(replace(config, run=replace(config.run, workers=1)), tmp_path / "other")
    train(other)
    ours, theirs = steps_of(tmp_path / "run"), steps_of(tmp_path / "other")
    assert [row["loss"] for row in ours] == [row["loss"] for row in theirs]
    assert all(0 <= row["data_wait"] < 1 for row in ours)


def test_progress_sees_every_step(make: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    with say_on_terminal():
        train(make(tiny_stage("completion", 3)), progress=lambda *told: seen.append(told))
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert seen[0][2].keys() >= {"loss", "l1_3dcn", "lr", "grad_norm", "clips_per_second"}
    out = capsys.readouterr().out
    assert "stage 0: completion, 3 steps of 1 clips of 4 frames of 16 x 16" in out
    assert re.search(r"3 clips in \d+ s, .* clips/s; .* % of it waited for data", out)


def test_the_bar_shows_losses_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Bar:
        n, disable = 4, False

        def __init__(self, **options: object) -> None:
            bars.append(self)
            self.options, self.shown = options, {}

        def set_postfix(self, shown: dict, _refresh: bool) -> None:
            self.shown = shown

        def update(self, count: int) -> None:
            self.count = count

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr("vinpaint.training.monitor.tqdm", Bar)
    bar = ProgressBar()
    bar(5, 9, {"l1_3dcn": 12.345, "clips_per_second": 2.0, "data_wait": 0.5, "loss": 1.0})
    bar.close()
    assert bars[0].options["total"] == 9
    assert bars[0].options["initial"] == 4
    assert bars[0].shown == {"l1_3dcn": "12.35", "clips/s": "2", "wait": "50%"}
    assert bars[0].count == 1
    assert bars[0].closed


def test_without_a_terminal_there_is_a_line_at_times(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    figures = {"l1_3dcn": 12.345, "clips_per_second": 2.0, "data_wait": 0.5, "loss": 1.0}
    with closing(ProgressBar()) as bar, caplog.at_level(logging.INFO, "vinpaint.training"):
        bar(5, 9, figures)
        assert not caplog.messages
        monkeypatch.setattr("vinpaint.training.monitor.LINE_SECONDS", 0)
        bar(6, 9, figures)
    assert caplog.messages == ["step 6 of 9: l1_3dcn 12.35, clips/s 2, wait 50%"]


def test_a_log_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2}\n{"step": 3, "lo')
    log = Log(path, 1)
    log.write({"step": 2, "loss": float("inf"), "lr": 0.123456789})
    log.close()
    assert read_log(path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None, "lr": 0.123457}]


def test_curves_are_drawn_with_stages_and_validation(make: Callable, tmp_path: Path) -> None:
    train(make(tiny_stage("completion", 3), tiny_stage("joint", 3), validate_every=3))
    picture = cv2.imread(str(tmp_path / "run" / "loss.png"))
    blue, red = ((np.abs(picture.astype(int) - c).sum(2) < 60).sum() for c in _COLOURS)
    assert blue > 200
    assert red > 200


_COLOURS = ((178, 114, 0), (0, 94, 213))  # of 3DCN and CombCN, as OpenCV reads them


def test_a_picture_shows_hole_fill_and_truth() -> None:
    frames, completed = torch.full((3, 9, 8, 8), 0.25), torch.full((3, 9, 8, 8), 2.0)
    mask = torch.zeros(1, 9, 8, 8)
    mask[..., :4] = 1
    picture = picture_rows(frames, mask, completed)
    assert picture.shape == (3, 3 * 8, 6 * 8)
    hole, fill, truth = picture.split(8, dim=1)
    assert hole[:, 0, 0].tolist() == [0.625, 0.125, 0.125]
    assert fill[:, 0, 0].tolist() == [1, 1, 1]
    assert fill[:, 0, 5].tolist() == truth[:, 0, 0].tolist() == [0.25] * 3


def test_tensorboard_gets_scalars_and_pictures(make: Callable, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(make(tiny_stage("joint", 2), tensorboard=True, validate_every=2))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    tags = events.Tags()
    assert {"training/loss", "training/lr", "validation/l1_combcn"} <= set(tags["scalars"])
    assert tags["images"] == ["hole, fill, truth"]
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2]


def test_missing_extras_are_said_and_do_no_harm(
    make: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    imported = builtins.__import__

    def without_extras(name: str, *args: object, **options: object) -> object:
        if name.startswith(("matplotlib", "torch.utils.tensorboard")):
            raise ImportError(name)
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_extras)
    train(make(tiny_stage("completion", 1), tensorboard=True))
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [("TensorBoard" in line, "pip install" in line) for line in told] == [
        (True, True),
        (False, True),
    ]
    assert "matplotlib is not installed" in told[1]
    assert not plot_losses(tmp_path / "run" / "log.jsonl", tmp_path / "loss.png")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"Example::\n\n(.*?)\n\nArgs:", inspect.getdoc(train) or "", re.DOTALL)
    assert block is not None
    code = textwrap.dedent(block[1])
    assert len(code.splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    for i in range(4):
        pictures = [scene(k, 64, 48, seed=i) for k in range(8)]
        write_video(Path("videos") / f"clip{i}.mp4", frames=8, size=(64, 48), pictures=pictures)
    code = code.replace("steps=20", "steps=1").replace('("videos",)', '("videos",), decoders=1')
    exec(compile(code, "train", "exec"), {})  # noqa: S102
    assert load_pretrained("run/weights").config.mode == "combcn"
    assert load_config("run/config.toml").run.output == "run"


def test_stages_may_differ_in_size(make: Callable, tmp_path: Path) -> None:
    stages = (
        StageConfig(networks="completion", steps=1, frames=2, size=SIZE),
        StageConfig(networks="completion", steps=1, frames=5, size=SIZE - 4, batch=2),
    )
    train(make(*stages))
    assert saved(tmp_path / "run")["samples"] == 1 + 2
    assert [row["stage"] for row in steps_of(tmp_path / "run")] == [0, 1]
