# SPDX-License-Identifier: Apache-2.0
"""The developers' tools, as far as they can be shown to work without a GPU."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gpu_run
import kernels
import numpy as np
import pytest
import torch
import train_flow_completion
import travel
import tune
from gpu_report import geometric_mean, page
from media import scene, write_image, write_video
from training_runs import here, steps_of, tiny, tiny_stage, write_config, write_shots

from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.propagation.completion import FlowCompletionNet, load_network
from vinpaint.training import DataConfig
from vinpaint.training.checkpoint import read_checkpoint, write_checkpoint

PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN8vinpaint6kernelIfLi3EEEvPf' for 'sm_80'
ptxas info    : Function properties for _ZN8vinpaint6kernelIfLi3EEEvPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 584 bytes cmem[0]
ptxas info    : Compile time = 12.345 ms
ptxas info    : Compiling entry function '_ZN8vinpaint6spillsEv' for 'sm_90a'
ptxas info    : Function properties for _ZN8vinpaint6spillsEv
    56 bytes stack frame, 92 bytes spill stores, 56 bytes spill loads
ptxas info    : Used 24 registers, used 0 barriers, 56 bytes cumulative stack size
"""


def test_registers_and_spills_are_read_from_the_compiler() -> None:
    fine, bad = kernels.parse("a.cu", PTXAS)
    assert (fine.architecture, fine.registers, fine.shared, fine.stack) == ("80", 40, 1024, 0)
    assert fine.spilled == 0
    assert (bad.architecture, bad.registers, bad.spilled) == ("90a", 24, 92 + 56)
    text = kernels.table([fine, bad])
    assert "| sm_80 | sm_90a |" in text
    assert "| a.cu |" in text


def _compiler(folder: Path, output: str, code: int = 0) -> kernels.Job:
    """A job whose compiler says this."""
    script = folder / "ptxas.py"
    script.write_text(f"import sys; sys.stderr.write({output!r}); sys.exit({code})")
    command = [sys.executable, str(script), "-o", "out.cubin"]
    return kernels.Job(Path("a.cu"), "90a", command, str(folder))


def test_a_spill_a_warning_and_an_error_speak_against_a_kernel(tmp_path: Path) -> None:
    found, complaints = kernels.compile_one(_compiler(tmp_path, PTXAS))
    assert len(found) == 2
    assert len(complaints) == 1
    assert "spills 148 bytes" in complaints[0]
    serialised = (
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async is serialized\n"
    )
    assert kernels.compile_one(_compiler(tmp_path, serialised))[1] == [
        f"a.cu, sm_90a: {serialised.strip()}"
    ]
    assert "does not compile" in kernels.compile_one(_compiler(tmp_path, "error", 1))[1][0]


def test_a_command_is_taken_apart_by_architecture() -> None:
    entry = {
        "directory": "/build",
        "file": "/src/a.cu",
        "command": "nvcc -O3 --threads=2 '--generate-code=arch=compute_80,code=[compute_80,sm_80]' "
        "--generate-code=arch=compute_90a,code=sm_90a -x cu -c /src/a.cu -o a.o",
    }
    jobs = list(kernels.split(entry))
    assert [job.architecture for job in jobs] == ["80", "90a"]
    assert jobs[1].command == [
        *("nvcc", "-O3", "-x", "cu", "-cubin", "/src/a.cu", "-o", "a.o.90a.cubin"),
        *("--generate-code=arch=compute_90a,code=sm_90a", "-Xptxas", "-v"),
    ]


def test_shots_come_through_almost_unchanged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 64)[None, None, :, None] + rng.uniform(0, 40, (5, 1, 1, 3))
    shot = np.broadcast_to(ramp, (5, 48, 64, 3)).astype(np.uint8)
    (tmp_path / "shots").mkdir()
    np.save(tmp_path / "shots" / "a.b@12.npy", shot)
    travel.main(["pack-shots", str(tmp_path / "shots"), str(tmp_path / "shots.zip")])
    travel.main(["unpack-shots", str(tmp_path / "shots.zip"), str(tmp_path / "again")])
    (path,) = (tmp_path / "again").iterdir()
    again = np.load(path)
    assert path.name == "a.b@12.npy"
    assert again.dtype == np.uint8
    assert again.shape == shot.shape
    assert np.abs(again.astype(int) - shot).mean() < 3


@pytest.mark.parametrize("average", [False, True])
def test_a_checkpoint_comes_through_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: bool
) -> None:
    model = VideoInpainter(InpainterConfig(width=0.25)).state_dict()
    other = {name: value + 1 for name, value in model.items()}
    moments = {"state": {0: {"exp_avg": torch.ones(3)}}}
    state = {"model": model, "average": {"model": other, "told": 5}, "done": 7}
    state |= {"optimizer": moments, "opponent": None, "scaler": {}, "config": {"run": {"seed": 3}}}
    write_checkpoint(tmp_path / "checkpoint.pt", state)
    monkeypatch.setattr(travel, "PART_BYTES", 1 << 20)
    options = [] if average else ["--no-average"]
    parts = str(tmp_path / "parts")
    travel.main(["pack-checkpoint", str(tmp_path / "checkpoint.pt"), parts, *options])
    sizes = [part.stat().st_size for part in Path(parts).iterdir()]
    assert max(sizes) <= 1 << 20
    assert len(sizes) == (4 if average else 2)
    travel.main(["unpack-checkpoint", parts, str(tmp_path / "again.pt")])
    again = read_checkpoint(tmp_path / "again.pt")
    assert (again["done"], again["config"]) == (7, {"run": {"seed": 3}})
    assert again["optimizer"] is None
    pairs = [(again["model"], model)]
    if average:
        assert again["average"]["told"] == 5
        pairs.append((again["average"]["model"], other))
    else:
        assert again["average"] is None
    for ours, theirs in pairs:
        for name, tensor in theirs.items():
            expected = tensor if tensor.dim() == 1 else tensor.half().float()
            assert torch.equal(ours[name], expected), name


def test_training_goes_on_on_another_machine(tmp_path: Path) -> None:
    write_shots(tmp_path / "decoded")
    travel.main(["pack-shots", str(tmp_path / "decoded"), str(tmp_path / "shots.zip")])
    config = tiny(tmp_path, tmp_path, tiny_stage("completion", 500), save_every=100)
    config = replace(config, data=DataConfig(cache=str(tmp_path / "here" / "shots"), short_side=16))
    write_config(config, tmp_path / "train.toml")

    def make(run: str, *variables: str) -> list[dict]:
        chosen = [f"RUN={tmp_path / run}", f"OUT={tmp_path / 'out'}", f"SHOTS={tmp_path}/shots.zip"]
        chosen += [f"CONFIG={tmp_path / 'train.toml'}", f"PYTHON={sys.executable}", "TIME=0.2s"]
        command = ["make", "gpu-train", *chosen, *variables]
        done = subprocess.run(
            command, cwd=gpu_run.ROOT, env=here(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        log = gzip.decompress((tmp_path / "out" / "log.jsonl.gz").read_bytes())
        (tmp_path / "out" / "log.jsonl").write_bytes(log)
        return steps_of(tmp_path / "out")

    first = make("here")
    assert 0 < len(first) < 500
    elsewhere = f"--set data.cache={json.dumps(str(tmp_path / 'there' / 'shots'))}"
    second = make("there", f"CHECKPOINT={tmp_path}/out", f"OPTIONS={elsewhere}")
    assert second[0]["step"] == len(first) + 1
    assert first[-1]["lr"] == 1e-3
    assert second[0]["lr"] == pytest.approx(1e-3 / 200)
    assert second[0]["loss"] < 2 * first[-1]["loss"]


def test_a_stage_ends_at_its_limit_and_says_how(tmp_path: Path) -> None:
    def run(code: str, limit: float = 60) -> str:
        with (tmp_path / "log").open("w") as log:
            return gpu_run.run([sys.executable, "-c", code], limit, log)

    assert run("print('fine')") == "passed"
    assert "fine" in (tmp_path / "log").read_text()
    assert run("raise SystemExit(3)") == "failed (3)"
    begun = time.monotonic()
    assert run("import time; time.sleep(50)", 0.5).startswith("cut off")
    assert time.monotonic() - begun < 20


def test_a_run_keeps_what_was_measured_and_fails_if_a_stage_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.dumps({"group": "ceilings", "product_tflops": 1.0, "copy_tbytes": 2.0})
    write = f"import os; open(os.environ['VINPAINT_BENCHMARK_RESULTS'], 'w').write({row!r})"
    codes = {"tests": "raise SystemExit(1)", "layers": write + "; raise SystemExit(1)"}
    monkeypatch.setenv("VINPAINT_BENCHMARK_SMOKE", "1")
    monkeypatch.setenv("COMMIT", "abc")
    monkeypatch.setattr(gpu_run, "missing", list)
    monkeypatch.setattr(
        gpu_run, "command", lambda stage, *_: [sys.executable, "-c", codes.get(stage, "pass")]
    )
    assert gpu_run.main(["build", "tests", "layers", "--out", str(tmp_path)]) == 1
    assert "did not pass: tests, layers" in capsys.readouterr().err
    (result,) = tmp_path.glob("cuda-*.json")
    whole = json.loads(result.read_text())
    assert [s["result"] for s in whole["stages"].values()] == ["passed", "failed (1)", "failed (1)"]
    assert whole["benchmarks"] == [json.loads(row)]
    assert whole["environment"]["commit"] == "abc"
    assert gpu_run.main(["build", "--out", str(tmp_path)]) == 0


def test_a_stage_for_another_card_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu_run.command("hopper", "80", tmp_path) is None
    assert gpu_run.command("tune", None, tmp_path) is None
    assert gpu_run.command("hopper", "90", tmp_path) == ["make", "gpu-hopper", f"OUT={tmp_path}"]
    assert gpu_run.command("rebuild", "90", tmp_path) == gpu_run.command("build", "90", tmp_path)
    monkeypatch.setenv("VINPAINT_BENCHMARK_SMOKE", "1")
    monkeypatch.setattr(gpu_run, "missing", list)
    monkeypatch.setattr(gpu_run, "command", lambda *_: None)
    assert gpu_run.main(["hopper", "--out", str(tmp_path)]) == 0


def test_a_table_keeps_other_cards(tmp_path: Path) -> None:
    table = tmp_path / "tuning_table.inc"
    head = "// Measured."
    table.write_text(f"{head}\n// No GPU has been measured yet.\n")
    tune.write_table(table, 80, ["{{80, 2}, 0},"])
    tune.write_table(table, 90, ["{{90, 1}, 0},"])
    tune.write_table(table, 90, ["{{90, 3}, 1},", "{{90, 2}, 1},"])
    assert table.read_text().splitlines() == [
        *(head, "{{80, 2}, 0},", "{{90, 2}, 1},", "{{90, 3}, 1},")
    ]


def test_the_page_shows_ratios_goals_and_shares() -> None:
    layers = [
        {"group": "layers, c", "layer": name, "ours_ms": 1.0, "conv2d_ms": peer, "conv3d_ms": 9.0}
        | {"times_conv2d": peer, "times_conv3d": 9.0, "goal": 1.5}
        | {"gflop": 400.0, "live_gflop": 300.0, "mbytes": 800.0}
        for name, peer in (("one", 2.0), ("two", 0.5))
    ]
    network = {"group": "both networks", "clip": "c", "peer": "eager", "gflop": 400.0}
    network |= {"ours_graph_ms": 1.0, "torch_ms": 3.0, "times_torch": 3.0}
    ceilings = {"group": "ceilings", "product_tflops": 800.0, "copy_tbytes": 4.0}
    stream = {"group": "stream", "size": "1080p", "lookahead": 0}
    stream |= {"frames_per_second": 61.2, "p99_times_median": 1.234}
    text = page({"card": "A card"}, {}, [ceilings, *layers, network, stream])
    assert "| 1080p | 0 | 61 | 1.23 |" in text
    assert "Geometric mean of 2 layers: 1.00 x. Slowest against torch: two, 0.50 x." in text
    assert "| one | 1000.0 | 2000.0 | conv2d | 2.00 x | 1.5 x | 400 | 300 | 800 |" in text
    assert "| two | 1000.0 | 500.0 | conv2d | 0.50 x | 1.5 x, missed |" in text
    assert "| c | eager | torch | 3.00 | 3.00 x | 17 % |" in text
    assert geometric_mean([1, 4]) == pytest.approx(2)


def test_the_networks_of_the_flow_are_trained_on_footage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    footage, run = tmp_path / "footage", tmp_path / "run"
    footage.mkdir()
    for name in ("one", "two", "judged"):
        write_video(footage / f"{name}.mp4", frames=18, size=(160, 96))
    (footage / "broken.MP4").write_bytes(b"no video")
    pictures = footage / "deep" / "folder"
    pictures.mkdir(parents=True)
    for index in range(18):
        write_image(pictures / f"{index}.png", scene(index, 96, 64))
    command = ["tool", str(footage), "--output", str(run), "--leave-out", "judged"]
    monkeypatch.setattr(sys, "argv", [*command, "--minutes", "0.05", "--batch", "2"])
    train_flow_completion.main()
    assert "broken.MP4" in capfd.readouterr().out
    arrays = np.load(run / "flows.npz")
    assert arrays["flow"].shape == (3, 16, 2, 60, 108, 2)
    assert arrays["gray"].shape == (3, 17, 60, 108)
    trained = load_network(run / "model.safetensors")
    assert trained.leave.weight.abs().max() > 0  # no longer zero, as at first
    with pytest.raises(InputError, match="of other clips"):
        train_flow_completion.decoded(footage, set(), run / "flows.npz")
    stretches = train_flow_completion.decoded(footage, {"judged"}, run / "flows.npz")
    samples = [train_flow_completion.Samples(stretches, seed=1).batch(2) for _ in range(2)]
    for one, other in zip(*samples, strict=True):
        assert torch.equal(one, other)
    _, off = train_flow_completion.loss_of(FlowCompletionNet(), samples[0])
    assert off[0] == off[1]  # an untrained network leaves the fill
