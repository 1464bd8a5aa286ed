# SPDX-License-Identifier: Apache-2.0
"""Check the calls of vinpaint/engine/tensorrt.py against TensorRT's types, without TensorRT.

    pip install --no-deps --target stubs tensorrt-stubs==10.13.0.35.1
    python benchmarks/tools/tensorrt_types.py stubs

The stubs are generated and have a few lines that are no Python (an argument named ``in``): these are left out.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from pathlib import Path

CHECKED = "vinpaint/engine/tensorrt.py"


def repair(file: Path) -> None:
    """Empty the lines that are no Python."""
    lines = file.read_text().split("\n")
    while True:
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            lines[(error.lineno or 1) - 1] = ""
        else:
            break
    file.write_text("\n".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stubs", type=Path, help="folder where tensorrt-stubs was installed")
    stubs = parser.parse_args().stubs.resolve()
    for file in stubs.rglob("*.pyi"):
        repair(file)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", os.devnull, CHECKED],
        env={**os.environ, "MYPYPATH": str(stubs)},
        capture_output=True,
        text=True,
        check=False,
    )
    if str(stubs) not in found.stdout + found.stderr:  # generated, so there is always some
        sys.exit(f"mypy did not read the stubs: {found.stdout}{found.stderr}")
    ours = [line for line in found.stdout.splitlines() if line.startswith("vinpaint/")]
    print("\n".join(ours) or f"{CHECKED} fits TensorRT's types")
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
