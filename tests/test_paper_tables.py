# SPDX-License-Identifier: Apache-2.0
"""The paper's tables: every row trains and is judged, what is done is not done again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import paper_tables
import pytest
from feature_weights import needs_weights
from media import write_video
from paper_tables import ROWS, Study, plot, run, to_markdown

from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter
from vinpaint.pretrained import load_pretrained
from vinpaint.training import TrainConfig, prepare_data
from vinpaint.training.checkpoint import read_checkpoint

STEPS = 6

ROWS_TRIED = ["3dcn", "combcn", "frozen", "plain"]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    one_process = partial(replace, decoders=1)
    monkeypatch.setattr(
        paper_tables, "prepare_data", lambda data, **kw: prepare_data(one_process(data), **kw)
    )
    for name in ("faces", "streets"):
        (tmp_path / name).mkdir()
        for clip in range(4):
            write_video(tmp_path / name / f"{clip}.mp4", frames=6)
    sets = {name: (str(tmp_path / name),) for name in ("faces", "streets")}
    return Study(
        runs=tmp_path / "runs",
        sets=sets,
        footage=(),
        photos=(),
        held_out=1 / 6,
        width=0.1,
        steps=1,
        batch=1,
        frames=4,
        size=32,
        comb_frames=2,
        learning_rate=1e-3,
        precision="fp32",
        device="cpu",
        clips=2,
    )


@needs_weights
def test_tables_from_footage(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = {row.table: 1 for row in ROWS.values()} | {"networks": 2}
    results = run(study, seeds, ROWS_TRIED)
    assert list(results) == ["faces", "streets"]
    assert list(results["faces"]) == ROWS_TRIED
    assert list(results["streets"]) == ["3dcn", "combcn"]  # the ablations are of the first
    assert [len(runs) for runs in results["faces"].values()] == [2, 2, 1, 1]
    assert set(results["faces"]["3dcn"][0]) == {"l1_3dcn"}
    first, second = results["faces"]["combcn"]
    assert first["l1"] != second["l1"]

    def again(*_: object) -> None:
        raise AssertionError("it is trained again")

    monkeypatch.setattr(paper_tables, "train", again)
    assert run(study, seeds, ROWS_TRIED) == results
    with pytest.raises(SystemExit, match="is of other options"):
        run(replace(study, steps=2), seeds, ROWS_TRIED)

    text = to_markdown(results, study)
    assert "0.1 of the paper's channels; 1 steps" in text
    assert text.count("| CombCN |") == 4  # in every table, to compare with
    assert "| 3DCN frozen | 1 |" in text
    assert "| 6.27 |" in text
    plot(results, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 10_000


@needs_weights
def test_rows_are_trained_once_on_footage_and_judged_on_each_set(
    study: Study, tmp_path: Path
) -> None:
    study = replace(study, footage=(str(tmp_path / "faces"),))  # the streets have the same names
    results = run(study, {"networks": 1}, ["2dcn"])
    assert [list(rows) for rows in results.values()] == [["2dcn"], ["2dcn"]]
    (log,) = (tmp_path / "runs").rglob("log.jsonl")
    assert log.parent == tmp_path / "runs" / "footage" / "2dcn-seed0" / "joint"
    assert len(log.read_text().splitlines()) == study.steps
    assert load_pretrained(log.parent / "weights").config.width == study.width
    assert study.trained_data("faces").augment.enabled
    assert not study.judged_data("faces").augment.enabled
    assert "Trained on all footage" in to_markdown(results, study)


@needs_weights
def test_shots_are_footage_and_a_time_limit_goes_on_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shots = tmp_path / "carried"
    shots.mkdir()
    for clip in range(6):
        pixels = np.random.default_rng(clip).integers(0, 256, (6, 40, 48, 3), dtype=np.uint8)
        np.save(shots / f"{clip}.mp4@0.npy", pixels)
    command = [
        *("--set", f"faces={shots}", "--runs", str(tmp_path / "again"), "--output", str(tmp_path)),
        *("--held-out", "0.5", "--width", "0.1", "--steps", str(STEPS)),
        *("--frames", "4", "--size", "32"),
        *("--precision", "fp32", "--device", "cpu", "--clips", "1", "--seeds", "1"),
        *("--rows", "2dcn"),
    ]
    with pytest.raises(SystemExit) as stopped:
        paper_tables.main([*command, "--time-limit", "0.0001s"])
    assert stopped.value.code == 75
    assert "stopped by time limit" in capsys.readouterr().err
    (run_folder,) = (tmp_path / "again").rglob("joint")
    begun = len((run_folder / "log.jsonl").read_text().splitlines())
    assert 0 < begun < STEPS
    train = paper_tables.train

    def goes_on(config: TrainConfig) -> VideoInpainter:
        assert read_checkpoint(Path(config.run.output) / "checkpoint.pt")["done"] == begun
        return train(config)

    monkeypatch.setattr(paper_tables, "train", goes_on)
    paper_tables.main(command)
    assert len((run_folder / "log.jsonl").read_text().splitlines()) == STEPS
    assert "| 2DCN | 1 |" in (tmp_path / "paper-tables.md").read_text()


def test_footage_that_cannot_be_judged_fairly_is_refused_before_the_first_row(
    study: Study, tmp_path: Path
) -> None:
    nested = replace(study, footage=(str(tmp_path),))  # where faces/0.mp4 is named faces_0.mp4
    with pytest.raises(InputError, match=r"\d\.mp4 of the set faces is held out there and trained"):
        run(nested, {"networks": 1}, ["2dcn"])
    with pytest.raises(InputError, match="none of 4 clips fell into"):
        run(replace(study, held_out=0.0001), {"networks": 1}, ["2dcn"])
    shots = tmp_path / "carried"
    shots.mkdir()
    np.save(shots / "a@0.npy", np.zeros((6, 40, 48, 3), np.uint8))
    with pytest.raises(InputError, match="expected a folder of shots alone"):
        replace(study, footage=(str(shots),), photos=(str(tmp_path),)).trained_data("faces")
    assert not [*(tmp_path / "runs").rglob("checkpoint.pt")]


def test_every_row_begins_with_a_row_of_the_same_model() -> None:
    for row in ROWS.values():
        if row.start is not None:
            assert ROWS[row.start].model == row.model
