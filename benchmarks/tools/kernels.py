# SPDX-License-Identifier: Apache-2.0
"""What the compiler makes of every CUDA kernel: registers, shared memory, stack. Fails on a spill.

Compiles each ``.cu`` file for each architecture with the very command that CMake would use, and reads
what ptxas reports. Needs nvcc, no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

GENCODE = re.compile(r"-{1,2}(?:generate-code|gencode)=arch=compute_(\w+),code=.*")
ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\w+)'"
    r"(?P<report>.*?Used (?P<registers>\d+) registers[^\n]*)",
    re.DOTALL,
)
# Also what costs as much as a spill: WGMMA that is serialised, setmaxnreg that is ignored.
COMPLAINT = re.compile(r"^ptxas (?:warning.*|.*Potential Performance Loss.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Kernel:
    """One kernel as compiled for one architecture; sizes in bytes."""

    source: str
    name: str
    architecture: str
    registers: int
    shared: int  # static; what is asked for at launch is not known to ptxas
    stack: int
    spilled: int  # stores plus loads


@dataclass(frozen=True)
class Job:
    """One ``.cu`` file for one architecture."""

    source: Path
    architecture: str
    command: list[str]
    folder: str


def commands(build: Path) -> list[Job]:
    """What CMake would run for the ``.cu`` files, taken apart by architecture."""
    pybind11 = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True
    )
    configure = [
        "cmake",
        *("-S", str(ROOT)),
        *("-B", str(build)),
        *("-G", "Ninja"),
        "-DVINPAINT_CUDA=ON",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.stdout.strip()}",
    ]
    done = subprocess.run(configure, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(configure)}\n{done.stdout}{done.stderr}")
    entries = json.loads((build / "compile_commands.json").read_text())
    return [job for e in entries if e["file"].endswith(".cu") for job in split(e)]


def split(entry: dict[str, str]) -> Iterable[Job]:
    """An entry of compile_commands.json as one device-only compilation an architecture."""
    words = shlex.split(entry["command"])
    chosen = [(m[1], w) for w in words if (m := GENCODE.fullmatch(w))]
    rest = [w for w in words if not GENCODE.fullmatch(w) and not w.startswith("--threads")]
    rest[rest.index("-c")] = "-cubin"
    output = rest.index("-o") + 1
    for architecture, _ in chosen:
        command = [*rest, f"--generate-code=arch=compute_{architecture},code=sm_{architecture}"]
        command[output] += f".{architecture}.cubin"
        yield Job(
            Path(entry["file"]),
            architecture,
            [*command, "-Xptxas", "-v"],
            entry["directory"],
        )


def parse(source: str, report: str) -> list[Kernel]:
    """The kernels in what ``ptxas -v`` wrote."""

    def size(pattern: str, text: str) -> int:
        return sum(int(n) for n in re.findall(rf"(\d+) bytes {pattern}", text))

    return [
        Kernel(
            source,
            m["name"],
            m["architecture"],
            int(m["registers"]),
            size("smem", m["report"]),
            size("stack frame", m["report"]),
            size("spill", m["report"]),
        )
        for m in ENTRY.finditer(report)
    ]


def compile_one(job: Job) -> tuple[list[Kernel], list[str]]:
    """Kernels of one compilation, and what speaks against them."""
    output = Path(job.folder) / job.command[job.command.index("-o") + 1]
    output.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(job.command, cwd=job.folder, capture_output=True, text=True, check=False)
    log = done.stdout + done.stderr
    where = f"{job.source.name}, sm_{job.architecture}"
    if done.returncode:
        return [], [f"{where}: does not compile\n{shlex.join(job.command)}\n{log}"]
    kernels = parse(job.source.name, log)
    complaints = [f"{where}: {line}" for line in COMPLAINT.findall(log)]
    complaints += [
        f"{where}: {readable(k.name)} spills {k.spilled} bytes" for k in kernels if k.spilled
    ]
    return kernels, complaints


def readable(name: str) -> str:
    """A kernel's name with its template arguments, without namespaces and parameters."""
    if shutil.which("c++filt"):
        done = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True)
        name = done.stdout.strip()
    name = re.sub(r"\(anonymous namespace\)::|vinpaint::|^void ", "", name)
    name = re.sub(r"\([\w: ]+\)(?=-?\d)", "", name)  # the type of a template value
    depth = 0
    for i, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            return name[:i]
    return name


def table(kernels: Sequence[Kernel]) -> str:
    """A Markdown table: one row a kernel, registers by architecture."""
    order = {a: i for i, a in enumerate(sorted({k.architecture for k in kernels}, key=_version))}
    rows: dict[tuple[str, str], dict[str, Kernel]] = {}
    for k in kernels:
        rows.setdefault((k.source, k.name), {})[k.architecture] = k
    lines = [
        "| file | kernel | static shared memory, bytes | stack, bytes | "
        + " | ".join(f"sm_{a}" for a in order)
        + " |",
        "|---|---|---|---|" + "---|" * len(order),
    ]
    for (source, name), by in sorted(rows.items()):
        cells = [str(by[a].registers) if a in by else "" for a in order]
        shared, stack = (max(getattr(k, what) for k in by.values()) for what in ("shared", "stack"))
        lines.append(
            f"| {source} | `{readable(name)}` | {shared} | {stack} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _version(architecture: str) -> tuple[int, str]:
    number = architecture.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(number), architecture[len(number) :]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print and write the table; 1 if anything spills or does not compile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "kernels")
    parser.add_argument("--output", type=Path, help="Markdown file to write the table to")
    parser.add_argument(
        "--architectures", nargs="*", default=[], help="only these; 90 means 90 and 90a"
    )
    parser.add_argument("--sources", nargs="*", default=[], help="only these, such as frames.cu")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args(arguments)
    wanted = [
        job
        for job in commands(args.build)
        if (not args.architectures or str(_version(job.architecture)[0]) in args.architectures)
        and (not args.sources or job.source.name in args.sources)
    ]
    if not wanted:
        sys.exit("no kernel is built of these sources for these architectures")
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(compile_one, wanted))
    kernels = [k for found, _ in results for k in found]
    complaints = [c for _, found in results for c in found]
    nvcc = subprocess.run(
        [wanted[0].command[0], "--version"], capture_output=True, text=True, check=True
    )
    release = re.search(r"release ([\d.]+)", nvcc.stdout)
    text = (
        "# Kernels as compiled\n\nRegisters a thread, by architecture; "
        f"nvcc {release[1] if release else ''}, the build's own flags. No kernel may spill. "
        f"Made by `make kernels`.\n\n{table(kernels)}\n"
    )
    print(text)
    if args.output is not None and not complaints:
        args.output.write_text(text)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if not kernels:
        print("ptxas reported no kernel", file=sys.stderr)
    return 1 if complaints or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
