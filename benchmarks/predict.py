# SPDX-License-Identifier: Apache-2.0
"""What every layer should take on a card, counted and not measured: a yardstick for the kernels.

A layer takes the longer of its arithmetic and its traffic. Arithmetic: the taps that a block of 128
positions cannot skip, by the kernels' own geometry, in whole waves of tiles over the multiprocessors, at
a share of the dense peak. Traffic: every tensor once, at the card's copy bandwidth.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

from layers import CLIPS, Layer, layers_of

HERE = Path(__file__).resolve().parent

BLOCK = 128  # positions that a block owns
WIDEST = 128  # output channels of the widest tile
NARROWEST = 8  # output channels of the narrowest tile
CHANNEL_STEP = 8  # input channels are padded to a multiple of this
MOST_HALO = 448  # input pixels that fit into shared memory twice, beside the weights
L2_TBYTES = 6.0  # a second, out of the L2 into the multiprocessors
LAUNCH_US = 2.0  # a kernel's start and end


@dataclass(frozen=True)
class Card:
    """Ceilings as seen on a card: a large matrix product on random data, a large copy."""

    name: str
    tflops: float  # dense bfloat16
    tbytes: float  # read plus written, a second
    multiprocessors: int


CARDS = {"h200": Card("H200", 790, 4.3, 132), "h100": Card("H100", 798, 3.0, 132)}

PATHS = {"mma.sync": 0.62, "WGMMA": 0.85}
"""The share of the dense peak that each kind of kernel is assumed to reach inside a full tile."""


@cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "geometry.so"
        sources = [HERE / "geometry.cpp", HERE.parent / "csrc" / "implicit_gemm.cpp"]
        compiler = os.environ.get("CXX", "c++")
        subprocess.run(
            [compiler, "-std=c++17", "-O1", "-shared", "-fPIC", *sources, "-o", library], check=True
        )
        loaded = ctypes.CDLL(str(library))
    loaded.vinpaint_geometry.restype = ctypes.c_int64
    return loaded


@dataclass(frozen=True)
class Geometry:
    """How a layer falls into blocks of :data:`BLOCK` positions."""

    patch: tuple[int, ...]
    blocks: int
    live: int  # (block, tap) pairs that are computed
    halo: int  # input pixels that a block reads once; 0: it reads its patch once a tap

    @property
    def pixels_read(self) -> int:
        """By all blocks, for one channel."""
        return self.blocks * self.halo if self.halo else self.live * BLOCK


def geometry(layer: Layer) -> Geometry:
    triple = ctypes.c_int * 3
    live, patch, halo = ctypes.c_int64(), triple(), ctypes.c_int()
    blocks = _library().vinpaint_geometry(
        layer.batch,
        triple(*layer.size),
        triple(*layer.out_size),
        triple(*layer.kernel),
        triple(*layer.stride),
        triple(*layer.dilation),
        triple(*layer.padding),
        ctypes.c_bool(layer.transposed),
        layer.out_channels,
        0 if layer.x_channels % 8 or layer.skip_channels % 8 else MOST_HALO,
        ctypes.byref(live),
        patch,
        ctypes.byref(halo),
    )
    return Geometry(tuple(patch), blocks, live.value, halo.value)


def tile_width(channels: int) -> int:
    """Output channels of a tile: the power of two that holds them, within bounds."""
    return min(WIDEST, max(NARROWEST, 1 << (channels - 1).bit_length()))


@dataclass(frozen=True)
class Prediction:
    """Of one layer on one card; times in microseconds."""

    layer: Layer
    geometry: Geometry
    tiles: int
    waves: float
    arithmetic: float
    traffic: float
    l2: float  # of what the tiles of mma.sync read from the L2

    @property
    def total(self) -> float:
        return max(self.arithmetic, self.traffic) + LAUNCH_US


def predict(layer: Layer, card: Card, share: float) -> Prediction:
    shape = geometry(layer)
    width = tile_width(layer.out_channels)
    columns = ceil(layer.out_channels / width)
    tiles = shape.blocks * columns
    waves = tiles / card.multiprocessors
    padded = sum(
        ceil(c / CHANNEL_STEP) * CHANNEL_STEP for c in (layer.x_channels, layer.skip_channels) if c
    )
    flops = 2 * shape.live * BLOCK * padded * width * columns
    busy = waves / ceil(waves)  # the share of the last wave's places that are taken, over all waves
    return Prediction(
        layer,
        shape,
        tiles,
        waves,
        arithmetic=flops / (card.tflops * share * busy) * 1e-6,
        traffic=layer.bytes() / card.tbytes * 1e-6,
        l2=2 * columns * padded * (shape.pixels_read + shape.live * width) / L2_TBYTES * 1e-6,
    )


def library_share(p: Prediction, card: Card) -> float:
    """The share of the peak at which a library's convolution, every tap computed and with separate
    concatenation, ReLU and addition, would be exactly its goal times slower than predicted for ours."""
    separate = p.layer.unfused_bytes() / card.tbytes * 1e-6
    left = p.layer.goal * p.total - separate
    return p.layer.flops() / (left * 1e-6 * card.tflops * 1e12) if left > 0 else float("inf")


def table(clip: str, card: Card) -> str:
    names = list(PATHS)
    head = [
        *("layer", "channels", "output", "GFLOP", "taps that touch data", "taps computed"),
        *("patch", "tiles", "waves", "µs traffic", "µs L2"),
        *(f"µs {name}" for name in names),
        *("goal", *(f"library share, {name}" for name in names)),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    totals = [0.0] * len(names)
    for layer in layers_of(*CLIPS[clip]):
        predicted = [predict(layer, card, share) for share in PATHS.values()]
        first, shape = predicted[0], predicted[0].geometry
        totals = [t + p.total for t, p in zip(totals, predicted, strict=True)]
        channels = f"{layer.x_channels}"
        channels += f" + {layer.skip_channels}" if layer.skip_channels else ""
        cells = [
            layer.name,
            f"{channels} → {layer.out_channels}",
            "x".join(map(str, layer.out_size)),
            f"{layer.flops() / 1e9:.1f}",
            f"{layer.live_taps() / layer.taps():.2f}",
            f"{shape.live * BLOCK / layer.taps():.2f}",
            "x".join(map(str, shape.patch)) + (f" ({shape.halo})" if shape.halo else ""),
            f"{first.tiles}",
            f"{first.waves:.1f}",
            f"{first.traffic:.1f}",
            f"{first.l2:.1f}",
            *(f"{p.total:.1f}" for p in predicted),
            f"{layer.goal:.1f} x",
            *(_percent(library_share(p, card)) for p in predicted),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    sums = [f"{t / 1e3:.2f} ms" for t in totals]
    lines.append("| all | " + " | ".join([""] * 10 + sums + [""] * (1 + len(names))) + " |")
    return "\n".join(lines)


def _percent(share: float) -> str:
    return "any" if share >= 1 else f"{100 * share:.0f} %"


def report(card: Card) -> str:
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in PATHS.items())
    text = f"""# A prediction, not a measurement: every layer on an {card.name}

Made by `make predict`. Nothing here was timed. Inference, bfloat16, batch 1, 32 frames. Taken as given:
{card.tflops:.0f} TFLOP/s dense, {card.tbytes} TB/s, {card.multiprocessors} multiprocessors, one tile of {BLOCK} positions and at most {WIDEST} channels on each
at a time, {LAUNCH_US:.0f} µs a launch, and of the dense peak inside a tile: {shares} (assumptions).

"Taps computed" is relative to all taps; more than those that touch data because a block skips a tap only
as a whole, and more than 1 where blocks hang over the edge. "Patch" is what a block owns, and in
brackets the input pixels that it reads once for all taps; without brackets it reads its patch once a tap.
"µs L2": what the tiles of mma.sync load, at {L2_TBYTES:.0f} TB/s (assumption), nothing shared between tiles. "Goal": how much faster than torch's own operators. "Library share": the goal is met as long as a
library's convolution runs below this share of the peak, if its concatenation, ReLU and addition are
separate and as fast as the memory; "any" means that they alone, or a convolution at the full peak, are slow enough.
"""
    return text + "".join(f"\n## {clip}\n\n{table(clip, card)}\n" for clip in CLIPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", choices=CARDS, default="h200")
    parser.add_argument("--output", type=Path, help="Markdown file to write instead of printing")
    args = parser.parse_args()
    text = report(CARDS[args.card])
    if args.output is None:
        sys.stdout.write(text)
    else:
        args.output.write_text(text)


if __name__ == "__main__":
    main()
