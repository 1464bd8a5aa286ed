# SPDX-License-Identifier: Apache-2.0
"""The evaluation, from a folder of clips to scores: nobody sees the truth, nothing is scored twice."""

from __future__ import annotations

import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from media import scene, write_folder, write_video
from models import random_model

from vinpaint.cli import main
from vinpaint.errors import InputError, InputWarning
from vinpaint.evaluation import Method, Results, evaluate, judge
from vinpaint.evaluation.methods import resolve_methods
from vinpaint.evaluation.program import Program
from vinpaint.evaluation.results import Failure, Score
from vinpaint.evaluation.run import _fill
from vinpaint.evaluation.worker import Filled, Worker
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.pretrained import save_pretrained

SIZE, FRAMES = (48, 40), 5

score = partial(evaluate, perceptual=False)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Clips ``a`` and ``b`` with a small moving object each, and a video ``c``; no pixel is black."""
    data = tmp_path / "clips"
    data.mkdir()
    for seed, name in enumerate("ab"):
        (data / name).mkdir()
        write_folder(data / name / "frames", [scene(i, *SIZE, seed) for i in range(FRAMES)])
        objects = np.zeros((FRAMES, SIZE[1], SIZE[0]), np.uint8)
        for i in range(FRAMES):
            objects[i, 10 + 8 * seed : 18 + 8 * seed, 8 + 4 * i : 20 + 4 * i] = 255
        write_folder(data / name / "masks", objects)
    write_video(data / "c.mp4", frames=FRAMES, size=SIZE)
    return data


def _counting(calls: list[int], *, stop_at: int = -1) -> Method:
    """The mean colour 90, which counts its calls, and is interrupted in one of them."""

    def fill(frames: np.ndarray, _hole: np.ndarray) -> np.ndarray:
        calls.append(len(frames))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return np.full_like(frames, 90)

    return Method("grey", lambda: fill)


def _failing_once() -> Method:
    """Black; a long clip that begins as ``a`` does is refused."""

    def fill(frames: np.ndarray, _hole: np.ndarray) -> np.ndarray:
        if np.array_equal(frames[0, -1, -1], scene(0, *SIZE, 0)[-1, -1]) and len(frames) > 15:
            raise ValueError("not this one")
        return np.zeros_like(frames)

    return Method("once", lambda: fill)


def _folders(command: str) -> list[str]:
    """A method's name that runs a line of Python with the three folders in ``f``, ``m`` and ``o``."""
    code = f"import sys, shutil, pathlib; f, m, o = map(pathlib.Path, sys.argv[1:]); {command}"
    return [f"prog=command:{sys.executable} -c '{code}' {{frames}} {{masks}} {{output}}"]


def test_the_truth_scores_perfectly_and_others_do_not(clips: Path, tmp_path: Path) -> None:
    results = score(clips, ["truth", "mean"], output=tmp_path / "out")
    assert results.holes == ["box", "object"]
    assert len(results.scores) == 3 * 2 * 2
    for hole in results.holes:
        truth, mean = results.mean(hole, "truth"), results.mean(hole, "mean")
        assert (truth["l1"], truth["psnr"], truth["ssim"]) == (0, 100, pytest.approx(1))
        assert mean["l1"] > 20
        assert mean["psnr"] < 30
        assert "seconds_per_frame" not in truth
        assert mean["seconds_per_frame"] > 0
        assert results.best(hole, "l1") == ["mean"]
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["means"]["box"]["mean"]["l1"] == results.mean("box", "mean")["l1"]
    assert written["versions"]["torch"]


def test_no_method_sees_what_it_has_to_fill(clips: Path, tmp_path: Path) -> None:
    seen = []

    def spy(frames: np.ndarray, hole: np.ndarray) -> np.ndarray:
        seen.append((frames.copy(), hole.copy()))
        frames[...], hole[...] = 7, False  # nor can it change what is scored
        return np.zeros_like(frames)

    results = score(clips, [Method("spy", lambda: spy)], output=tmp_path / "out")
    assert not results.failures
    assert len(seen) == 6
    truths = [np.stack([scene(i, *SIZE, seed) for i in range(FRAMES)]) for seed in (0, 0, 1, 1)]
    for (frames, hole), truth in zip(seen, truths, strict=False):
        assert hole.any()
        assert truth.min() > 0
        assert (frames[hole] == 0).all()
        assert np.array_equal(frames[~hole], truth[~hole])
        # Black in the hole, the truth elsewhere: the known pixels cost nothing.
        expected = truth[hole].mean(dtype=float)
        assert any(s.values["l1"] == pytest.approx(expected, rel=1e-5) for s in results.scores)


def test_known_pixels_are_the_inputs_own(tmp_path: Path) -> None:
    truth = np.stack([scene(i, *SIZE) for i in range(FRAMES)])
    hole = np.zeros(truth.shape[:3], bool)
    hole[:, 5:20, 8:30] = True
    filled, _ = _fill(Worker(_counting([]), isolate=False), truth, hole, tmp_path / "kept.npz")
    assert np.array_equal(filled[~hole], truth[~hole])
    assert (filled[hole] == 90).all()


def test_masks_that_were_written_give_the_same_scores(clips: Path, tmp_path: Path) -> None:
    kinds = ["box", "object", "free-form"]
    methods = ["telea", "truth"]
    made = score(clips, methods, output=tmp_path / "made", holes=kinds, seed=3)
    masks = tmp_path / "made" / "masks"
    read = score(clips, methods, output=tmp_path / "read", holes=kinds, masks=masks)
    for results in (made, read):
        for entry in results.scores:
            entry.values.pop("seconds_per_frame", None)
    assert read.scores == made.scores
    assert score(clips, ["truth"], output=tmp_path / "all", masks=masks).holes == kinds
    (masks / "box" / "a" / "00004.png").unlink()
    with pytest.warns(InputWarning, match="holds 4 masks, but the clip has 5 frames"):
        short = score(clips, ["truth"], output=tmp_path / "short", masks=masks)
    assert [(f.clip, f.hole, f.method) for f in short.failures] == [("a", "box", "truth")]
    assert len(short.scores) == 3 * 3 - 1
    with pytest.warns(InputWarning, match="is 48 x 40, but the clip is evaluated at 24 x 20"):
        small = score(
            clips,
            ["truth"],
            output=tmp_path / "small",
            masks=masks,
            holes=["object"],
            size=(24, 20),
        )
    assert len(small.failures) == 3
    assert (tmp_path / "small" / "results.json").exists()


def test_broken_clips_are_told_before_the_first_fill_and_the_others_go_on(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "c.mp4").write_bytes(b"no video")
    (clips / "d").mkdir()
    shutil.copytree(clips / "a" / "frames", clips / "d" / "frames")
    (clips / "d" / "frames" / "frame4.png").write_bytes(b"no picture")
    calls: list[int] = []
    told: list[tuple[int, int, int]] = []
    progress = lambda done, total: told.append((done, total, len(calls)))
    with pytest.warns(InputWarning, match="the clip [cd] is left out") as warned:
        results = score(
            clips, [_counting(calls), "mean"], output=tmp_path / "out", progress=progress
        )
    assert len(warned) == 2
    assert told[:2] == [(4, 16, 0), (8, 16, 0)]
    assert told[-1][:2] == (16, 16)
    assert len(results.scores) == 2 * 2 * 2
    assert {(f.clip, f.hole, f.method) for f in results.failures} == {
        (clip, hole, method)
        for clip in "cd"
        for hole in ("box", "object")
        for method in ("grey", "mean")
    }
    assert len(results.best("box", "l1")) == 1  # of the clips that are sound
    out = tmp_path / "command"
    run = ["evaluate", str(clips), "--output", str(out), "--no-perceptual", "--holes", "box"]
    assert main([*run, "--methods", "truth"]) == 1
    assert "warning: the clip d is left out" in capsys.readouterr().err
    assert len(json.loads((out / "results.json").read_text())["failures"]) == 2
    page = (out / "index.html").read_text()
    assert "sheets/box/a.jpg" in page
    assert "sheets/box/d.jpg" not in page


def test_masks_of_an_older_evaluation_are_taken_only_when_asked_for(
    clips: Path, tmp_path: Path
) -> None:
    def holes(output: str, **options: object) -> list[str]:
        return score(clips / "a", ["truth"], output=tmp_path / output, **options).holes

    masks = tmp_path / "made" / "masks"
    for kinds in (["box", "free-form"], ["box"]):
        assert holes("made", holes=kinds, overwrite=True) == kinds
    assert holes("other", masks=masks) == ["box"]
    assert holes("made", masks=masks, holes=["free-form"], overwrite=True) == ["free-form"]
    assert holes("third", masks=masks) == ["box"]
    (masks / "kinds.json").unlink()  # masks that no evaluation wrote
    assert holes("fourth", masks=masks) == ["box", "free-form"]
    for text, message in (("[", "is no JSON"), ('{"box": 1}', "a list of kinds of hole")):
        (masks / "kinds.json").write_text(text)
        with pytest.raises(InputError, match=message):
            holes("fifth", masks=masks)


def test_an_interrupted_evaluation_goes_on(clips: Path, tmp_path: Path) -> None:
    calls: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        score(clips, [_counting(calls, stop_at=3)], output=tmp_path / "out")
    first = score(clips, [_counting(calls)], output=tmp_path / "out")
    assert len(calls) == 3 + 4
    again = score(clips, [_counting(calls)], output=tmp_path / "out")
    assert len(calls) == 7
    assert again.scores == first.scores


@pytest.mark.parametrize("change", [{"ratio": 0.2}, {"seed": 1}, {"frames": 3}, {"size": (40, 40)}])
def test_what_was_kept_under_other_options_is_not_used(
    clips: Path, tmp_path: Path, change: dict
) -> None:
    calls: list[int] = []
    one = score(clips, [_counting(calls)], output=tmp_path / "out", holes=["box"])
    change = {**change, "output": tmp_path / "out", "holes": ["box"]}
    (name,) = change.keys() - {"output", "holes"}
    with pytest.raises(InputError, match=f"holds a report of {name} .*expected another folder"):
        score(clips, [_counting(calls)], **change)
    other = score(clips, [_counting(calls)], **change, overwrite=True)
    assert len(calls) == 6
    assert [s.values["l1"] for s in one.scores] != [s.values["l1"] for s in other.scores]


def test_a_failure_is_reported_and_the_others_go_on(clips: Path, tmp_path: Path) -> None:
    methods = [*_folders("sys.exit(str(len(list(f.iterdir()))) + chr(32) + 'frames')"), "mean"]
    methods[0] = methods[0].replace("'frames'", '"frames"')
    results = score(clips, methods, output=tmp_path / "out", holes=["box"])
    assert [f.clip for f in results.failures] == ["a", "b", "c"]
    assert "ended with exit code 1: 5 frames" in results.failures[0].reason
    assert len(results.of("box", "mean")) == 3
    assert "prog (0 of 3 clips)" in results.table("box")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("shutil.copytree(f, o, dirs_exist_ok=True)", None),
        ("pass", "holds no pictures"),
        ('shutil.copy(f / "00000.png", o)', "wrote 1 frames, expected 5"),
        (
            "shutil.copytree(m, o, dirs_exist_ok=True)",
            "wrote 00000.png as uint8 (40, 48), expected",
        ),
    ],
)
def test_a_program_is_a_method(
    clips: Path, tmp_path: Path, command: str, reason: str | None
) -> None:
    results = score(clips / "a", _folders(command), output=tmp_path / "out", holes=["box"])
    if reason is None:
        assert not results.failures
        assert results.mean("box", "prog")["psnr"] < 30
    else:
        assert reason in results.failures[0].reason


def test_a_programs_memory_is_its_own() -> None:
    held = np.ones(200 << 20, np.uint8)  # by this process
    frames, hole = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), bool)
    peaks = []
    for size in (300, 0):  # the second one's is not the first one's
        take = f"import shutil, sys; x = bytearray({size} << 20); f, o = sys.argv[1:]; "
        copy = "shutil.copytree(f, o, dirs_exist_ok=True)"
        words = [sys.executable, "-S", "-c", take + copy, "{frames}", "{output}"]
        program = Program(words)
        assert np.array_equal(program(frames, hole), frames)
        peaks.append(program.peak_memory)
    assert held.any()
    assert peaks[0] > 300
    assert 1 < peaks[1] < 100


def test_memory_of_the_gpu_and_of_the_host_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = np.full((3, 8, 8, 3), 9, np.uint8)
    hole = np.ones((3, 8, 8), bool)
    results = Results(["a"], ["box"], ["network", "classical"], {}, {})
    for name, memory in (("network", (900.0, 50.0)), ("classical", (80.0,))):
        answer = Filled(truth[hole], 0.1, *memory)
        worker = Worker(Method(name, lambda: None), isolate=True)
        monkeypatch.setattr(Worker, "__call__", lambda *_, answer=answer: answer)
        _, costs = _fill(worker, truth, hole, tmp_path / f"{name}.npz")
        results.scores.append(Score("a", "box", name, costs))
    assert results.mean("box", "network")["gpu_memory"] == 50
    assert "gpu_memory" not in results.mean("box", "classical")
    assert results.best("box", "peak_memory") == ["classical"]


def test_a_program_that_is_not_there(clips: Path, tmp_path: Path) -> None:
    method = "command:no-such-program {frames} {masks} {output}"
    results = score(clips / "a", [method], output=tmp_path / "out", holes=["box"])
    assert "no-such-program could not be run" in results.failures[0].reason


def test_networks_have_a_row_for_each_weights_that_fit(tmp_path: Path, clips: Path) -> None:
    model = random_model()
    save_pretrained(model, tmp_path / "one" / "weights")
    model.comb.conv1.gamma.data.mul_(2)
    save_pretrained(model, tmp_path / "two")
    save_pretrained(VideoInpainter(InpainterConfig(mode="2dcn")), tmp_path / "flat")
    weights = [tmp_path / "one" / "weights", f"second={tmp_path / 'two'}", tmp_path / "flat"]
    results = score(
        clips / "a",
        ["vinpaint", "3dcn", "2dcn"],
        output=tmp_path / "out",
        holes=["box"],
        weights=weights,
        precision="fp32",
    )
    assert not results.failures
    l1 = {method: results.mean("box", method)["l1"] for method in results.methods}
    assert list(l1) == ["vinpaint one", "vinpaint second", "3dcn one", "3dcn second", "2dcn flat"]
    assert l1["vinpaint one"] != l1["vinpaint second"]  # their CombCN differs,
    assert l1["3dcn one"] == l1["3dcn second"]  # which 3DCN alone does not use
    assert len(set(l1.values())) == 4


def test_what_propagation_and_networks_do_alone_has_rows_of_its_own(
    tmp_path: Path, clips: Path
) -> None:
    save_pretrained(random_model(), tmp_path / "weights")
    methods = ["vinpaint", "networks", "propagation", "harmonic"]
    options = {"weights": [tmp_path / "weights"], "precision": "fp32"}
    results = score(clips / "a", methods, output=tmp_path / "out", holes=["object"], **options)
    assert not results.failures
    l1 = {method: results.mean("object", method)["l1"] for method in results.methods}
    assert len(set(l1.values())) == 4
    rows = {row.name: row.identity for row in resolve_methods(methods[:3], **options)}
    assert rows["propagation"] not in ("", rows["vinpaint"])
    assert rows["vinpaint"] != rows["networks"]  # more depends on the flow's network


def test_streams_have_rows_by_their_lookahead(tmp_path: Path, clips: Path) -> None:
    save_pretrained(random_model(), tmp_path / "weights")
    options = {"weights": [tmp_path / "weights"], "precision": "fp32"}
    methods = ["stream:0", "stream:3", "vinpaint"]
    results = score(clips / "a", methods, output=tmp_path / "out", holes=["object"], **options)
    assert not results.failures
    assert results.methods == methods
    l1 = {method: results.mean("object", method)["l1"] for method in methods}
    assert len(set(l1.values())) == 3
    with pytest.raises(InputError, match="got 'stream:x'"):
        resolve_methods(["stream:x"])


def test_a_process_that_dies_is_a_failure_and_is_started_again(clips: Path, tmp_path: Path) -> None:
    dying = Method("dying", partial(os._exit, 3))
    results = score(clips / "a", [dying], output=tmp_path / "out", isolate=True)
    assert [f.reason for f in results.failures] == 2 * ["its process has ended (exit status 3)"]


def test_a_method_that_cannot_be_sent_to_a_process_is_a_failure(
    clips: Path, tmp_path: Path
) -> None:
    local = Method("local", lambda: None)
    results = score(clips / "a", [local], output=tmp_path / "out", isolate=True)
    assert len(results.failures) == 2
    assert all("local object" in failure.reason for failure in results.failures)


def test_scores_whose_package_is_missing_are_left_out(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise InputError("no such package")

    monkeypatch.setattr(judge, "LPIPS", missing)
    with pytest.warns(InputWarning, match="no such package"):
        results = evaluate(clips / "a", ["truth"], output=tmp_path / "out")
    assert "lpips" not in results.metrics("box")


def test_the_distance_of_whole_sets_needs_every_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Video:
        """In place of I3D: the mean colour of both halves of a clip."""

        def __init__(self, _device: torch.device) -> None:
            pass

        def __call__(self, frames: np.ndarray) -> np.ndarray:
            seen.append(len(frames))
            return frames.reshape(2, -1, 3).mean(1)

    monkeypatch.setattr(judge, "LPIPS", lambda: SimpleNamespace(to=lambda _device: None))
    monkeypatch.setattr(judge, "VideoFeatures", Video)
    for seed, name in enumerate("ab"):
        write_folder(tmp_path / name, [scene(i, *SIZE, seed) for i in range(judge.WINDOW)])
    write_folder(tmp_path / "short", [scene(i, *SIZE) for i in range(judge.WINDOW - 1)])
    methods = ["truth", "mean", _counting([]), _failing_once()]
    for _ in range(2):
        results = evaluate(tmp_path, methods, output=tmp_path / "out")
        assert seen == [judge.WINDOW] * 9  # two clips with the truth itself, less one failure
        vfid = {method: values.get("vfid") for method, values in results.sets["box"].items()}
        assert vfid["truth"] == pytest.approx(0, abs=1e-6)
        assert 0 < vfid["mean"] < vfid["grey"]
        assert vfid["once"] is None
        assert "vfid" in results.metrics("box")
        methods[3] = _failing_once()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "nowhere"}, "DATA: expected a folder of clips, found no folder"),
        ({"data": "."}, "holds no clip"),
        ({"methods": ["telia"]}, "expected one of vinpaint, networks, .* got 'telia'"),
        ({"methods": []}, "expected at least one"),
        ({"methods": ["mean", "mean"]}, "mean comes twice"),
        ({"methods": ["2dcn"]}, "the method 2dcn needs weights whose config.json says mode 2dcn"),
        ({"methods": ["command:x {frames} {masks}"]}, "has no {output}"),
        ({"methods": ["vinpaint"], "weights": ["nowhere"]}, "found no nowhere"),
        ({"methods": ["vinpaint"], "device": "tpu"}, "device: expected auto"),
        ({"holes": ["circle"]}, "--holes: expected some of box, object, free-form; got circle"),
        ({"ratio": 1.0}, "--hole-ratio: expected a share"),
        ({"masks": "nowhere"}, "--masks: expected a folder, found no folder"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, clips: Path, options: dict, message: str) -> None:
    data = tmp_path / options.pop("data") if "data" in options else clips
    if data == tmp_path:
        data = tmp_path / "empty"
        data.mkdir()
    with pytest.raises(InputError, match=message):
        score(data, **{"methods": ["mean"], "output": tmp_path / "out", **options})


def test_object_masks_of_another_count_are_refused(clips: Path, tmp_path: Path) -> None:
    (clips / "b" / "masks" / "frame5.png").unlink()
    with pytest.warns(InputWarning, match="holds 4 masks, but the clip b has 5 frames"):
        results = score(clips, ["truth"], output=tmp_path / "out", holes=["object"])
    assert "a" in {failure.clip for failure in results.failures}
    assert results.scored("object") >= {"b"}


def test_means_bests_and_numbers_that_are_none(tmp_path: Path) -> None:
    results = Results(["a", "b", "c"], ["box"], ["x", "y", "truth"], {}, {})
    for clip, seconds in zip("abc", (1.0, 2.0, 9.0), strict=True):
        values = {"psnr": 20.0, "warp_error": float("nan"), "seconds_per_frame": seconds}
        results.scores.append(Score(clip, "box", "x", values))
    results.scores.append(Score("a", "box", "y", {"psnr": 50.0}))
    results.failures.append(Failure("b", "box", "y", "no"))
    assert results.mean("box", "x") == {"psnr": 20.0, "seconds_per_frame": 2.0}
    assert results.best("box", "psnr") == ["x"]  # y lacks clips
    results.save(tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["scores"][0]["values"]["warp_error"] is None
    assert "| **20.00** |" in results.table("box")


def test_the_command_writes_a_table_and_a_page(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run = ["evaluate", str(clips), "--output", str(out), "--no-perceptual", "--holes", "box"]
    assert main([*run, "--methods", "truth"]) == 0
    failing = "no=command:no-such-program {frames} {masks} {output}"
    smaller = ["--size", "32x24", "--frames", "4"]
    assert main([*run, *smaller, "--methods", "truth"]) == 2
    smaller.append("--overwrite")
    assert main([*run, *smaller, "--methods", "mean", failing, "truth"]) == 1
    printed = capsys.readouterr()
    assert "| mean " in printed.out
    assert str(out / "index.html") in printed.out
    assert "no failed on b (box): no-such-program could not be run" in printed.err
    assert "3 of 9 fills failed" in printed.err
    results = json.loads((out / "results.json").read_text())
    assert results["options"]["size"] == [32, 24]
    assert results["means"]["box"]["mean"]["peak_memory"] > 10
    assert main([*run, "--methods", "nothing"]) == 2
    for wrong in ("432", "0x240", "axb"):
        with pytest.raises(SystemExit):
            main([*run, "--size", wrong])
        assert "expected WIDTHxHEIGHT" in capsys.readouterr().err


def test_methods_of_your_own_stay_as_they_are() -> None:
    own = Method("own", lambda: lambda frames, hole: frames)
    assert resolve_methods([own, "truth"])[0] is own
