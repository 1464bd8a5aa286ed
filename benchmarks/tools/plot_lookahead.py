# SPDX-License-Identifier: Apache-2.0
"""Plot what a stream's look-ahead is worth, and print the table, from a report of ``vinpaint evaluate``.

vinpaint evaluate clips/ -o report --size 432x240 --methods stream:0 stream:1 stream:2 stream:4 stream:8 stream:13
python benchmarks/tools/plot_lookahead.py report/results.json docs/lookahead.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SCORES = {
    "l1": "l1 in the hole",
    "psnr": "PSNR, dB",
    "lpips": "LPIPS",
    "warp_error": "warp error, 1e-3",
}


def lookaheads(results: dict[str, Any]) -> list[int]:
    """K of the report's methods ``stream:K``."""
    named = (method.partition(":") for method in results["methods"])
    return sorted(int(frames) for name, _, frames in named if name == "stream")


def plot(results: dict[str, Any], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    frames = lookaheads(results)
    figure, axes = plt.subplots(1, len(SCORES), figsize=(13, 3.2), layout="constrained")
    for axis, (score, label) in zip(axes, SCORES.items(), strict=True):
        for hole in results["holes"]:
            values = [results["means"][hole][f"stream:{k}"][score] for k in frames]
            axis.plot(frames, values, marker="o", label=hole)
        axis.set_title(label)
        axis.set_xticks(frames)
        axis.set_xlabel("look-ahead, frames")
        axis.set_ylim(bottom=0 if score != "psnr" else None)
    axes[0].legend()
    figure.savefig(file, dpi=100)


def table(results: dict[str, Any]) -> str:
    """In Markdown."""
    head = ["look-ahead", *(f"{hole}: {score}" for hole in results["holes"] for score in SCORES)]
    lines = [head, ["---"] * len(head)]
    for k in lookaheads(results):
        found = [results["means"][hole][f"stream:{k}"] for hole in results["holes"]]
        lines.append([str(k), *(f"{means[score]:.4g}" for means in found for score in SCORES)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("plot", type=Path)
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    plot(results, args.plot)
    print(table(results))


if __name__ == "__main__":
    main()
