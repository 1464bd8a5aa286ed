# SPDX-License-Identifier: Apache-2.0
"""The installed command, run as a user runs it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from media import write_video
from models import random_model
from PIL import Image

from vinpaint.cli import main
from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig
from vinpaint.pretrained import save_pretrained
from vinpaint.video.reader import open_clip

COMMAND = [str(Path(sys.executable).with_name("vinpaint"))]


def _run(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames of 96 x 64."""
    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    write_video(path, frames=10, size=(96, 64), audio=True)
    return path


def test_info_describes_the_build() -> None:
    done = _run("info", "--json")
    info = json.loads(done.stdout)
    expected = {
        "version",
        "torch",
        "built_with_cuda",
        "cuda_architectures",
        "cpu_features",
        "devices",
    }
    assert expected <= set(info)
    assert "cpu" in info["devices"]
    assert bool(info["cuda_architectures"]) == info["built_with_cuda"]
    assert info["version"] in _run("info").stdout
    assert _run("--version").stdout.strip() == f"vinpaint {info['version']}"
    module = [sys.executable, "-m", "vinpaint", "--version"]
    done = subprocess.run(module, capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == _run("--version").stdout


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, vinpaint; vinpaint.Inpainter; import torch;"
        "bad = {'tensorrt', 'tensorrt_rtx', 'onnx', 'gradio', 'ray', 'scenedetect'} & set(sys.modules);"
        "assert not bad, bad; assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd="/")


def test_inpaint_writes_a_video_a_preview_and_a_comparison(clip: Path, tmp_path: Path) -> None:
    output, preview, compare = (
        tmp_path / "out.mp4",
        tmp_path / "sheet.png",
        tmp_path / "compare.mp4",
    )
    done = _run(
        "inpaint",
        clip,
        "--box",
        "20,16,24,20@2-5",
        "-o",
        output,
        "--preview",
        preview,
        "--compare",
        compare,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # quiet when not a terminal
    assert "10 frames, 4 with a hole" in done.stdout
    with av.open(str(output)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 10
    with av.open(str(compare)) as container:
        assert container.streams.video[0].width >= 2 * 96
        assert sum(1 for _ in container.decode(video=0)) == 10
    with Image.open(preview) as sheet:
        assert sheet.width > 2 * 96
    assert sorted(p.name for p in tmp_path.iterdir()) == ["compare.mp4", "out.mp4", "sheet.png"]


def test_propagation_can_be_left_out(clip: Path, tmp_path: Path) -> None:
    boxes = [part for t in range(10) for part in ("--box", f"{8 + 6 * t},16,16,20@{t}-{t}")]
    outputs = []
    for options in ([], ["--propagate", "auto"], ["--propagate", "off"]):
        output = tmp_path / f"{len(outputs)}.mkv"
        done = _run("inpaint", clip, *boxes, "-o", output, "--codec", "ffv1", *options)
        assert done.returncode == 0, done.stderr
        outputs.append([frame.rgb for frame in open_clip(output, argument="output").frames()])
    default, auto, off = map(np.stack, outputs)
    assert np.array_equal(default, auto)
    assert not np.array_equal(auto, off)
    done = _run("inpaint", clip, *boxes, "-o", tmp_path / "x.mkv", "--propagate", "on")
    assert done.returncode == 2
    assert "'on'" in done.stderr


def test_an_empty_mask_gives_the_input_and_says_so(clip: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "mask.png")
    done = _run(
        "inpaint",
        clip,
        "--mask",
        tmp_path / "mask.png",
        "-o",
        tmp_path / "out.mkv",
        "--codec",
        "ffv1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("vinpaint: warning: the mask is empty")
    with av.open(str(clip)) as theirs, av.open(str(tmp_path / "out.mkv")) as ours:
        for a, b in zip(theirs.decode(video=0), ours.decode(video=0), strict=True):
            assert np.array_equal(a.to_ndarray(), b.to_ndarray())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere.mp4", "--box", "1,1,9,9"], "no such file"),
        (["{clip}"], "--mask or --box"),
        (["{clip}", "--box", "90,1,9,9"], "96 x 64"),
        (["{clip}", "--box", "0,0,96,64"], "covers every pixel"),
        (["{clip}", "--box", "1,1,9"], "expected x,y,w,h"),
        (["{clip}", "--box", "1,1,9,9", "--weights", "nowhere"], "weights: expected a folder"),
        (["{clip}", "--box", "1,1,9,9", "--device", "tpu"], "device: expected auto, cpu or cuda"),
        (["{clip}", "--box", "1,1,9,9", "--dilate", "-1"], "0 or more pixels"),
        (["{clip}", "--box", "1,1,9,9", "--codec", "nonsense"], "nonsense"),
        (["{clip}", "--box", "1,1,9,9", "--preview", "nowhere/sheet.png"], "nowhere"),
        (["{clip}", "--box", "1,1,9,9", "--compare", "nowhere/compare.mp4"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
) -> None:
    args = [arg.format(clip=clip) for arg in args]
    monkeypatch.chdir(tmp_path)
    assert main(["inpaint", *args, "-o", "out.mp4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vinpaint: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_failure_that_is_no_bad_input_is_exit_code_1(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vinpaint.video.writer.VideoWriter.write", full)
    output = tmp_path / "out.mp4"
    assert main(["inpaint", str(clip), "--box", "20,16,24,20", "-o", str(output)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    args = ["inpaint", "nowhere.mp4", "--box", "1,1,9,9", "-o", str(tmp_path / "out.mp4")]
    with pytest.raises(InputError):
        main([*args, "--debug"])
    assert main(args) == 2


def test_unknown_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["inpaint"], ["nonsense"], []):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert stop.value.code == 2
        assert "usage: vinpaint" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", frames=400, size=(256, 192))
    folder = tmp_path / "out"
    folder.mkdir()
    command = [
        *COMMAND,
        "inpaint",
        str(tmp_path / "in.mp4"),
        "--box",
        "20,20,160,120",
        "-o",
        str(folder / "out.mp4"),
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        deadline = time.monotonic() + 120
        while not list(folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(folder.iterdir())  # the hidden file has been begun
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert list(folder.iterdir()) == []


def test_demo_writes_its_three_files(tmp_path: Path) -> None:
    done = _run("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    names = sorted(p.name for p in (tmp_path / "vinpaint-demo").iterdir())
    assert names == ["walker-compare.mp4", "walker.mp4", "walker.png"]


def test_train_and_use_the_weights(clip: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sizes = ["frames=2", "size=32", "steps=1", "batch=1"]
    sizes += ["warmup=0", "comb_frames=2", "freeze_stats_steps=0"]
    options = [f"stages.{i}.{size}" for i in (0, 1, 2) for size in sizes]
    options += ["data.short_side=64", "data.validation_share=0.0"]
    options += ["data.decoders=1", "run.workers=0", "model.width=0.25"]
    sets = [part for option in options for part in ("--set", option)]
    done = _run("train", clip.parent, "-o", run, *sets)
    assert done.returncode == 0, done.stderr
    used = _run(
        "inpaint",
        clip,
        "--box",
        "20,16,24,20",
        "-o",
        tmp_path / "o.mp4",
        "--weights",
        run / "weights",
    )
    assert used.returncode == 0, used.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--onnx", "a.onnx"], "--width and --height: expected both"),
        (["--onnx", "a.onnx", "--engine", "b.engine"], "--engine: expected --triton beside it"),
        (
            [
                "--onnx",
                "a.onnx",
                "--width",
                "64",
                "--height",
                "64",
                "--frames",
                "4",
                "--lookahead",
                "2",
            ],
            "either a clip's number of frames or a stream's look-ahead, got 4 and 2",
        ),
        (
            ["--triton", "models", "--width", "60", "--height", "64", "--any-size"],
            "expected multiples of 8 above 8 for any size, got 64 x 60",
        ),
        (["--triton", "models", "--engine", "nowhere"], "engine: nowhere cannot be read"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(
    words: list[str], message: str, tmp_path: Path
) -> None:
    done = _run("export", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("vinpaint: ")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_engine_is_built_once_and_then_found(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    save_pretrained(random_model(InpainterConfig(width=0.125)), tmp_path / "weights")
    words = ["compile", "--backend", "openvino", "--weights", "weights"]
    words += ["--width", "16", "--height", "16", "--lookahead", "0", "-o", "stream.engine"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for how in ("built", "found"):
        done = _run(*words, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"stream.engine: an engine for this installation, {how}\n"


def test_a_shell_completes_commands_options_and_choices(tmp_path: Path) -> None:
    """The script is run by the shell that it is for, and asked as that shell asks it."""
    script = _run("completion", "bash").stdout
    ask = """
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
$(complete -p vinpaint | sed 's/.*-F \\([^ ]*\\).*/\\1/') vinpaint "${{COMP_WORDS[$COMP_CWORD]}}"
echo "${{COMPREPLY[@]}}"
"""

    def completed(words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", script + ask.format(words=words)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        return done.stdout.split()

    (tmp_path / "mask.png").touch()
    assert completed("vinpaint in") == ["inpaint", "info"]
    assert completed("vinpaint inpaint --cr") == ["--crf"]
    assert completed("vinpaint inpaint --propagate ''") == ["auto", "off"]
    assert completed("vinpaint inpaint --mask ma") == ["mask.png"]
    assert _run("completion", "zsh").stdout.startswith("#compdef vinpaint")


def test_a_mask_is_made_and_then_filled(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("8,8,20,16,0,4\n40,30,20,16,0.1,0.3\n")
    made = _run(
        "mask",
        clip,
        "--boxes",
        "boxes.csv",
        "-o",
        "mask.mkv",
        "--preview",
        "look.png",
        cwd=tmp_path,
    )
    assert made.stdout == "mask.mkv: 10 frames, 8 with a hole\n"
    with Image.open(tmp_path / "look.png") as sheet:
        assert sheet.width > 400
    weights = tmp_path / "weights"
    save_pretrained(random_model(InpainterConfig(width=0.125)), weights)
    words = ["--weights", weights, "--mask", "mask.mkv", "-o", "out.mp4"]
    assert _run("inpaint", clip, *words, cwd=tmp_path).returncode == 0
    before, after = (
        np.stack([f.rgb for f in open_clip(p).frames()]).astype(int)
        for p in (clip, tmp_path / "out.mp4")
    )
    inside = abs(after - before)[:5, 10:22, 10:26].mean()
    assert inside > 3 * abs(after - before)[9].mean()
    done = _run("mask", clip, "-o", "none.mkv", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected something that says where the hole is" in done.stderr
