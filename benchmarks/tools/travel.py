# SPDX-License-Identifier: Apache-2.0
"""Shots and checkpoints small enough to be carried to and from a machine with a GPU.

Shots become one archive of WebP frames. A checkpoint becomes parts of at most 15 MiB: weights and their
average, kernels in float16 (two times 29 MiB for the paper's networks, ``--no-average`` once), everything else
as it is, but for the moments of Adam, which would be twice that again. What comes out goes on as a checkpoint
of ``vinpaint train``: Adam begins anew, and for 200 steps the learning rate rises to what it was.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vinpaint.training.checkpoint import write_checkpoint

PART_BYTES = 15 << 20


def pack_shots(folder: Path, archive: Path, quality: int) -> None:
    """Shots, (F, H, W, 3) uint8 in ``.npy`` files, as frames of an archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for path in sorted(folder.glob("*.npy")):
            for index, frame in enumerate(np.load(path, mmap_mode="r")):
                done, webp = cv2.imencode(".webp", frame, [cv2.IMWRITE_WEBP_QUALITY, quality])
                if not done:
                    sys.exit(f"{path}: frame {index} cannot be encoded")
                packed.writestr(f"{path.stem}/{index:06d}.webp", webp.tobytes())
    print(f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB")


def unpack_shots(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as packed:
        shots: dict[str, list[str]] = {}
        for name in sorted(packed.namelist()):
            shots.setdefault(name.rpartition("/")[0], []).append(name)
        for shot, names in shots.items():
            encoded = (np.frombuffer(packed.read(name), np.uint8) for name in names)
            frames = [cv2.imdecode(webp, cv2.IMREAD_COLOR) for webp in encoded]
            np.save(folder / f"{shot}.npy", np.stack(frames))


def pack_checkpoint(checkpoint: Path, folder: Path, *, average: bool = True) -> list[Path]:
    """``checkpoint.pt.00`` and so on in ``folder``, without Adam's moments; kernels are rounded to float16."""
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True, map_location="cpu")
    state.update(optimizer=None, opponent=None, scaler={})
    state["model"] = _rounded(state["model"])
    if not average:
        state["average"] = None
    elif state["average"] is not None:
        state["average"]["model"] = _rounded(state["average"]["model"])
    whole = io.BytesIO()
    torch.save(state, whole)
    data = whole.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("checkpoint.pt.*"):
        stale.unlink()
    parts = []
    for index, start in enumerate(range(0, len(data), PART_BYTES)):
        part = folder / f"checkpoint.pt.{index:02d}"
        part.write_bytes(data[start : start + PART_BYTES])
        parts.append(part)
    return parts


def _rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.half() if t.dim() > 1 else t for name, t in weights.items()}


def unpack_checkpoint(folder: Path, checkpoint: Path) -> None:
    parts = sorted(folder.glob("checkpoint.pt.*"))
    if not parts:
        sys.exit(f"no part of a checkpoint in {folder}")
    whole = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    state: dict[str, Any] = torch.load(whole, weights_only=True)
    for weights in (state["model"], (state["average"] or {}).get("model", {})):
        weights.update({name: t.float() for name, t in weights.items()})
    write_checkpoint(checkpoint, state)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    for name, source, target in (
        ("pack-shots", "SHOTS", "ARCHIVE"),
        ("unpack-shots", "ARCHIVE", "SHOTS"),
        ("pack-checkpoint", "CHECKPOINT", "FOLDER"),
        ("unpack-checkpoint", "FOLDER", "CHECKPOINT"),
    ):
        command = commands.add_parser(name)
        command.add_argument("source", metavar=source, type=Path)
        command.add_argument("target", metavar=target, type=Path)
        if name == "pack-shots":
            command.add_argument("--quality", type=int, default=90, help="of WebP, up to 100")
        if name == "pack-checkpoint":
            command.add_argument(
                "--no-average",
                dest="average",
                action="store_false",
                help="half the size; the average begins anew from the weights",
            )
    args = parser.parse_args(arguments)
    if args.command == "pack-shots":
        pack_shots(args.source, args.target, args.quality)
    elif args.command == "unpack-shots":
        unpack_shots(args.source, args.target)
    elif args.command == "pack-checkpoint":
        for part in pack_checkpoint(args.source, args.target, average=args.average):
            print(f"{part}: {part.stat().st_size / 2**20:.1f} MiB")
    else:
        unpack_checkpoint(args.source, args.target)


if __name__ == "__main__":
    main()
