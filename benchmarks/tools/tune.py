# SPDX-License-Identifier: Apache-2.0
"""Measure which algorithm is the fastest for every convolution of the networks on this GPU.

Runs both networks, forward and backward, at several sizes, while the library times every product with
every algorithm, and replaces this GPU's lines in csrc/cuda/tuning_table.inc, after every size, so that
what was measured outlives a time limit. Build again to use them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from vinpaint import _C
from vinpaint.nn import VideoInpainter, fold_batch_norm

TABLE = Path(__file__).resolve().parents[2] / "csrc" / "cuda" / "tuning_table.inc"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# Frames, height and width: the paper's clip, a small clip of a training batch, and full frames.
CLIPS = [(32, 128, 128), (16, 96, 96), (32, 240, 432)]


def _clip(frames: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    clip = torch.rand(1, 3, frames, height, width, device="cuda")
    mask = torch.zeros(1, 1, frames, height, width, device="cuda")
    mask[..., height // 4 : height // 2, width // 4 : width // 2] = 1
    return clip, mask


def _train(dtype: torch.dtype, clip: torch.Tensor, mask: torch.Tensor) -> None:
    model = VideoInpainter().cuda().train()
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        completed, coarse = model(clip, mask)
    assert coarse is not None
    (completed.square().mean() + coarse.square().mean()).backward()


def _infer(dtype: torch.dtype, clip: torch.Tensor, mask: torch.Tensor) -> None:
    model = fold_batch_norm(VideoInpainter()).to("cuda", dtype)
    with torch.inference_mode():
        model(clip.to(dtype), mask.to(dtype))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--output", type=Path, default=TABLE)
    parser.add_argument("--copy", type=Path, help="folder that gets a copy of the table too")
    arguments = parser.parse_args()

    torch.backends.cudnn.benchmark = True
    _C.measure_products(True)
    major, minor = torch.cuda.get_device_capability()
    for name in arguments.dtypes:
        for size in CLIPS:
            clip, mask = _clip(*size)
            _infer(DTYPES[name], clip, mask)
            if size != CLIPS[-1]:  # full frames are not trained on
                _train(DTYPES[name], clip, mask)
            products = _C.measured_products()
            write_table(arguments.output, 10 * major + minor, products)
            if arguments.copy is not None:
                shutil.copy(arguments.output, arguments.copy)
            print(f"{name} {size}: {len(products)} products measured", flush=True)


def write_table(path: Path, capability: int, lines: list[str]) -> None:
    """Replace the lines of GPUs of this compute capability (10 * major + minor)."""
    kept = [
        line
        for line in path.read_text().splitlines()
        if not line.startswith(f"{{{{{capability},") and not line.endswith("measured yet.")
    ]
    path.write_text("\n".join(kept + sorted(lines)) + "\n")


if __name__ == "__main__":
    main()
