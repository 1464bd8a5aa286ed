# SPDX-License-Identifier: Apache-2.0
"""Configurations: read, overridden, shown, and refused with the option's name."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from vinpaint.cli import main
from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig
from vinpaint.training import DataConfig, LossConfig, RunConfig, StageConfig, TrainConfig
from vinpaint.training.config import RECIPES, check_footage, load_config
from vinpaint.training.options import field_docs, to_toml

CONFIG = """
[data]
cache = "shots"
holes.shares = { box = 1.0 }

[model]
reduction = 4

[run]
precision = "fp32"
time_limit = "8m"

[[stages]]
networks = "completion"
steps = 30

[[stages]]
steps = 40
comb_frames = "none"
learning_rate = 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(CONFIG)
    return path


def test_a_file_and_what_was_set_on_the_command_line(file: Path) -> None:
    assignments = [
        "stages.1.steps=50",
        "data.folders=['a b']",
        "model.mode=combcn",
        "run.init=none",
    ]
    config = load_config(file, [*assignments, "stages.2.networks=comb"])
    assert config.data == DataConfig(
        cache="shots", folders=("a b",), holes=type(config.data.holes)(shares={"box": 1.0})
    )
    assert config.model == InpainterConfig(reduction=4)
    assert config.run == RunConfig(precision="fp32", time_limit="8m")
    assert config.stages == (
        StageConfig(networks="completion", steps=30),
        StageConfig(steps=50, learning_rate=1.0),
        StageConfig(networks="comb"),
    )
    assert config.steps == 30 + 50 + 10_000


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "run.seeed=1",
            r"run\.seeed: no such option \(did you mean seed\?\); expected one of output,",
        ),
        (
            "runs.seed=1",
            r"runs: no such option \(did you mean run\?\); expected one of data, model",
        ),
        ("stages.0.stps=1", r"stages\.0\.stps: no such option \(did you mean steps\?\)"),
        ("data.holes.sides=1", r"data\.holes\.sides: no such option \(did you mean side\?\)"),
        ("run.seed=x", r"run\.seed: expected a whole number, got 'x'"),
        ("run.seed=1.5", r"run\.seed: expected a whole number, got 1\.5"),
        ("run.tensorboard=1", r"run\.tensorboard: expected true or false, got 1"),
        ("run.ema=nan", r"run\.ema: expected a number, got nan"),
        (
            "run.precision=bf61",
            r"expected one of fp32, bf16, fp16, got 'bf61' \(did you mean bf16\?",
        ),
        ("run.time_limit=soon", r"run\.time_limit: expected a time such as 90s, 8m or 1h30m"),
        ("run.ema=1.0", r"run\.ema: expected 0, or more and less than 1, got 1\.0"),
        ("stages.0.steps=0", r"stages\.0\.steps: expected 1 or more, got 0"),
        (
            "stages.1.comb_frames=99",
            r"stages\.1\.comb_frames: expected at most the clip's 32 frames",
        ),
        ("stages.1.warmup=99", r"stages\.1\.warmup: expected warm-up and decay within .* 40 steps"),
        ("stages=[]", "stages: expected one or more, got none"),
        ("stages=3", "stages: expected a list, got 3"),
        ("run=3", "run: expected a table of options, got 3"),
        ("model.mode=2dcn", r"stages\.0\.networks: expected joint, since a 2DCN has no 3DCN"),
        ("model.mean=[0.1,0.2]", r"model\.mean: expected 3 values, got 2"),
        ("model.mean=[0.1,0.2,0.3]", r"model\.mean: only taken with run\.mean = .model."),
        ("model.width=9.0", r"model\.width must lie between 0 and 4, got 9\.0"),
        ("data.holes.shares.bocks=1", r"data\.holes\.shares: no such kind of hole: 'bocks'"),
        ("data.augment.flip=2.0", r"data\.augment\.flip: expected a share"),
        ("losses.temporal=-1", r"losses\.temporal must be a finite number of at least 0"),
        ("stages.1.frames=1", r"stages\.1\.frames must be at least 2 with the temporal loss"),
        (
            "stages.9.steps=1",
            r"--set: stages\.9\.steps: expected a number from 0 to 2 instead of '9'",
        ),
        ("stages.0=1", r"--set: stages\.0 names an entry of a list"),
        ("run.seed.x=1", r"--set: run\.seed\.x: seed is a value, it has no keys"),
        ("run.seed", r"--set: expected SECTION\.KEY=VALUE, got 'run\.seed'"),
    ],
)
def test_what_is_wrong_is_named(file: Path, assignment: str, message: str) -> None:
    before = ["losses.temporal=0.5", "run.seed=1"]
    with pytest.raises(InputError, match=message):
        load_config(file, [*before, assignment])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"CONFIG: expected a TOML file, .* found no nowhere\.toml"
    ):
        load_config("nowhere.toml")
    (tmp_path / "bad.toml").write_text("[run\n")
    with pytest.raises(InputError, match=r"bad\.toml is no TOML file"):
        load_config(tmp_path / "bad.toml")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete(name: str) -> None:
    config = load_config(name, ["data.folders=['videos']"])
    assert config.data.folders == ("videos",)
    assert config.data.cache == str(Path("run") / "shots")
    first, *others = [stage.networks for stage in config.stages]
    assert first == "completion"
    assert set(others) == {"joint"}


def test_the_papers_recipe_has_the_papers_settings() -> None:
    config = load_config("paper")
    assert config.model == InpainterConfig(reduction=2, prefill="mean", mode="combcn", width=1.0)
    assert config.losses == LossConfig(comb_weight=1.0)
    assert config.data.holes.shares == {"box": 1.0}
    assert config.data.holes.side == (0.375, 0.5)
    assert not config.data.augment.enabled
    assert (config.run.precision, config.run.ema) == ("fp32", 0.0)
    for stage in config.stages:
        assert (stage.frames, stage.size, stage.comb_frames, stage.batch) == (32, 128, None, 1)
        assert (stage.learning_rate, stage.schedule, stage.clip_norm) == (1e-3, "constant", None)


def test_a_folder_of_videos_is_the_default_recipe(tmp_path: Path) -> None:
    config = load_config(tmp_path, ["run.output='there'"])
    assert config.data.folders == (str(tmp_path),)
    assert config.data.cache == str(Path("there") / "shots")
    assert config.stages == load_config("default").stages


def test_a_recipe_wins_over_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = load_config("paper")
    Path("paper").mkdir()
    assert load_config("paper") == expected
    assert load_config("./paper").data.folders == ("./paper",)
    assert load_config(Path("paper")).data.folders == ("paper",)


def test_what_is_shown_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--print-config"]) == 0
    shown = capsys.readouterr().out
    assert "`" not in shown
    assert '# "combcn": 3DCN guides CombCN; "2dcn": CombCN alone' in shown
    assert "# Of gradient_l1." in shown


def test_what_is_shown_says_everything_and_reads_back(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["train", str(file), "--print-config", "--set", "run.seed=7", "--output", "here"]
    assert main([*args, "--time-limit", "90s"]) == 0
    shown = capsys.readouterr().out
    (tmp_path / "shown.toml").write_text(shown)
    config = load_config(tmp_path / "shown.toml")
    changes = ["run.seed=7", "run.output='here'", "run.time_limit='90s'"]
    assert config == load_config(file, changes)
    assert load_config_of(to_toml(config), tmp_path) == config
    comments = " ".join(line[2:] for line in shown.splitlines() if line.startswith("# "))
    for cls in (DataConfig, InpainterConfig, LossConfig, RunConfig, StageConfig):
        docs = field_docs(cls)
        for field in fields(cls):
            assert docs[field.name].strip(), field.name
            if not is_dataclass(getattr(config.data, field.name, None)):
                assert docs[field.name] in comments, field.name
    assert "Adam's; the paper's is 1e-3. Default: 0.001" in comments


def load_config_of(text: str, folder: Path) -> TrainConfig:
    (folder / "again.toml").write_text(text)
    return load_config(folder / "again.toml")


def test_without_a_configuration_or_a_run_there_is_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--output", str(tmp_path)]) == 2
    assert "CONFIG: expected a TOML file, a recipe (default, paper)" in capsys.readouterr().err


def test_forgotten_footage_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = "data.folders: expected footage to train on, got none"
    assert main(["train", "paper", "--output", "there"]) == 2
    assert asked in capsys.readouterr().err
    assert not Path("there").exists()
    assert main(["train", "paper", "--set", "data.cache=elsewhere"]) == 2
    assert "no such folder: elsewhere" in capsys.readouterr().err
    check_footage(load_config("paper", ["data.photos=['photos']"]))


def test_schedules_warm_up_and_fall() -> None:
    def rates(**options: object) -> list[float]:
        stage = StageConfig(learning_rate=1.0, **options)
        return [stage.rate(step) for step in range(stage.steps)]

    assert rates(steps=3) == [1, 1, 1]
    assert rates(steps=4, warmup=3) == [0.25, 0.5, 0.75, 1]
    assert rates(steps=4, schedule="linear") == [1, 0.75, 0.5, 0.25]
    assert rates(steps=5, schedule="linear", decay=2) == [1, 1, 1, 1, 0.5]
    assert rates(steps=4, schedule="linear", final_rate=0.5) == [1, 0.875, 0.75, 0.625]
    assert rates(steps=2, schedule="cosine") == pytest.approx([1, 0.5])
    assert rates(steps=3, schedule="linear", decay=0) == [1, 1, 1]
