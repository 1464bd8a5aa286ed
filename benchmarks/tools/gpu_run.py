# SPDX-License-Identifier: Apache-2.0
"""Everything that only a GPU can show, in one run: build for this card, test, tune, measure, check.

Every stage has a time limit and none stops the others; what was measured before a limit is kept. Needs no
network: packages are those that are there, and wheels in the folder that WHEELS names. Writes
``cuda-<card>.json``, ``cuda-<card>.md``, ``gpu-log.txt``, and what the stages leave: ``hopper-check.txt``
and the measured ``tuning_table.inc``. With VINPAINT_BENCHMARK_SMOKE=1 it also runs
where there is no card, on the CPU, to show that it would run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TextIO

from gpu_report import page

ROOT = Path(__file__).resolve().parents[2]

NEEDED = (
    *("torch", "scikit-build-core", "pybind11", "ninja", "numpy", "safetensors"),
    *("opencv-python-headless", "pytest", "pytest-benchmark"),
)

PYTEST = [sys.executable, "-m", "pytest", "--no-showlocals", "-q", "-p", "no:cacheprovider"]
BENCHMARK = [*PYTEST, "--benchmark-only", "--benchmark-disable-gc"]
SANITIZER = ["compute-sanitizer", "--error-exitcode=9", "--target-processes=all"]
TOOLS = Path(__file__).resolve().parent
OPERATORS = [sys.executable, str(TOOLS / "every_operator.py")]

SECONDS = {
    "hopper": 60,
    "build": 180,
    "tests": 90,
    "tune": 100,
    "rebuild": 60,
    "layers": 100,
    "networks": 100,
    "streaming": 60,
    "training": 60,
    "memcheck": 90,
    "racecheck": 90,
    "initcheck": 90,
}
"""The stages in their order, and the most seconds each may take. Together that is more than IN_ALL: the
checks of the memory come last, and can be had alone."""

NOT_HERE = "not for this card"
"""The result of a stage that has nothing to do on it."""

IN_ALL = 570
"""Seconds after which no stage goes on: with the report, ten minutes at most."""


def command(stage: str, capability: str | None, out: Path) -> list[str] | None:
    """What a stage runs, None if it is not for this card.

    ``capability`` is the card's, such as 90, or None without a card; ``out`` gets the files that it leaves.
    """
    if stage == "hopper":
        return ["make", "gpu-hopper", f"OUT={out.resolve()}"] if capability == "90" else None
    if stage == "tune":
        tune = [sys.executable, str(TOOLS / "tune.py"), "--copy", str(out.resolve())]
        return tune if capability is not None else None
    if stage in ("build", "rebuild"):
        chosen = ["-C", f"cmake.define.VINPAINT_CUDA_ARCHITECTURES={capability or 90}"]
        install = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps"]
        return [*install, "--no-build-isolation", *chosen, str(ROOT)]
    if stage in ("memcheck", "racecheck", "initcheck"):
        if capability is None:
            return [*OPERATORS, "--device", "cpu"]
        return [*SANITIZER, f"--tool={stage}", *OPERATORS]
    return {
        "tests": [*PYTEST, "tests/gpu"],
        "layers": [
            *BENCHMARK,
            "benchmarks/test_cuda_ceilings.py",
            "benchmarks/test_cuda_layers.py",
        ],
        "networks": [*BENCHMARK, "benchmarks/test_cuda_network.py"],
        "streaming": [*BENCHMARK, "benchmarks/test_cuda_streaming.py"],
        "training": [*BENCHMARK, "benchmarks/test_cuda_training.py"],
    }[stage]


def environment() -> dict[str, Any]:
    """What the figures hold for."""
    import torch

    facts: dict[str, Any] = {
        "card": "no GPU",
        "smoke": os.environ.get("VINPAINT_BENCHMARK_SMOKE") == "1",
    }
    if torch.cuda.is_available():
        facts["card"] = torch.cuda.get_device_name()
        facts["capability"] = "".join(map(str, torch.cuda.get_device_capability()))
        facts["multiprocessors"] = torch.cuda.get_device_properties(0).multi_processor_count
    facts["date"] = time.strftime("%Y-%m-%d")
    facts["commit"] = commit()
    facts["python"] = sys.version.split()[0]
    facts["torch"] = torch.__version__
    facts["cuda of torch"] = torch.version.cuda
    facts["cudnn"] = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    facts["nvcc"] = _first(r"release ([\d.]+)", ["nvcc", "--version"])
    query = ["driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit"]
    values = _first(
        "(.+)", ["nvidia-smi", f"--query-gpu={','.join(query)}", "--format=csv,noheader"]
    )
    if values is not None:
        facts.update(zip(query, values.split(", "), strict=False))
    return facts


def commit() -> str:
    """From COMMIT, else from git, which a copied tree may not have."""
    given = os.environ.get("COMMIT")
    return given or _first("(.+)", ["git", "-C", str(ROOT), "rev-parse", "HEAD"]) or "unknown"


def _first(pattern: str, asked: Sequence[str]) -> str | None:
    """What a program's output matches, None if there is no such program."""
    if shutil.which(asked[0]) is None:
        return None
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout)
    return found[1] if done.returncode == 0 and found else None


def missing() -> list[str]:
    """What this machine lacks, in words."""
    lacks = []
    for name in NEEDED:
        try:
            version_of(name)
        except PackageNotFoundError:
            lacks.append(f"the Python package {name}")
    return lacks + [f"the program {p}" for p in ("cmake", "nvcc") if shutil.which(p) is None]


def install_wheels(folder: str | None) -> None:
    """Packages carried to a machine without a network."""
    wheels = sorted(Path(folder).glob("*.whl")) if folder else []
    if wheels:
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*install, *map(str, wheels)], check=True)


def run(asked: Sequence[str], limit: float, log: TextIO) -> str:
    """Run to its end or its limit. Returns ``passed``, ``failed (code)`` or ``cut off``."""
    log.write(f"\n$ {' '.join(asked)}\n")
    log.flush()
    surroundings = {
        **os.environ,
        "VINPAINT_CUDA": "ON",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count()),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # the installed package, not the source folder
    }
    if asked[0] == SANITIZER[0]:
        surroundings["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # or only the pool's ends are guarded
    try:
        process = subprocess.Popen(
            asked, cwd=ROOT, stdout=log, stderr=log, env=surroundings, start_new_session=True
        )
    except FileNotFoundError:
        return f"failed (there is no {asked[0]})"
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"cut off after {limit:.0f} s"
    return "passed" if code == 0 else f"failed ({code})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; 1 if any did not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(SECONDS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--seconds", type=float, default=IN_ALL, help="in all")
    args = parser.parse_args(arguments)
    stages = args.stages or list(SECONDS)
    if unknown := set(stages) - set(SECONDS):
        parser.error(
            f"unknown stage {', '.join(sorted(unknown))}; choose from {', '.join(SECONDS)}"
        )
    started = time.monotonic()
    install_wheels(os.environ.get("WHEELS"))
    if lacks := missing():
        sys.exit(
            f"missing: {', '.join(lacks)}. Carry wheels in a folder and name it: WHEELS=folder"
        )
    facts = environment()
    if "capability" not in facts and not facts["smoke"]:
        sys.exit("torch sees no CUDA GPU (VINPAINT_BENCHMARK_SMOKE=1 tries everything on the CPU)")
    if not facts["smoke"]:
        os.environ["VINPAINT_REQUIRE_CUDA"] = "1"

    args.out.mkdir(parents=True, exist_ok=True)
    log_path, rows_path = args.out / "gpu-log.txt", args.out / "rows.jsonl"
    rows_path.unlink(missing_ok=True)
    os.environ["VINPAINT_BENCHMARK_RESULTS"] = str(rows_path.resolve())
    results: dict[str, dict[str, Any]] = {}
    with log_path.open("w") as log:
        for stage in stages:
            begun = time.monotonic()
            left = args.seconds - (begun - started)
            if left < 5:
                results[stage] = {"result": "no time left", "seconds": 0.0}
                continue
            asked = command(stage, facts.get("capability"), args.out)
            if asked is None:
                results[stage] = {"result": NOT_HERE, "seconds": 0.0}
                continue
            print(f"{stage} ...", flush=True)
            result = run(asked, min(left, SECONDS[stage]), log)
            seconds = time.monotonic() - begun
            results[stage] = {"result": result, "seconds": round(seconds, 1)}
            print(f"{stage}: {result}, {seconds:.0f} s", flush=True)
            if result != "passed":
                print(
                    "\n".join(log_path.read_text(errors="replace").splitlines()[-25:]), flush=True
                )
    rows = (
        [json.loads(line) for line in rows_path.read_text().splitlines()]
        if rows_path.exists()
        else []
    )
    rows_path.unlink(missing_ok=True)
    name = "cuda-" + re.sub(r"\W+", "-", facts["card"].lower().removeprefix("nvidia ")).strip("-")
    whole = {"environment": facts, "stages": results, "benchmarks": rows}
    (args.out / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    text = page(facts, results, rows)
    (args.out / f"{name}.md").write_text(text)
    print(text)
    bad = [stage for stage, r in results.items() if r["result"] not in ("passed", NOT_HERE)]
    if bad:
        print(f"did not pass: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
