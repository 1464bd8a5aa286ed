# SPDX-License-Identifier: Apache-2.0
"""Draws how the kernels are laid out, as SVG files, for docs/pages/kernels.md.

``python docs/tools/draw_kernels.py`` writes them, ``--check`` says which are not up to date. Sizes are those of the sources,
from which the constants are read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pages" / "pictures"

INK, GRAY, FAINT = "#263238", "#78909c", "#cfd8dc"
BLUE, TEAL, AMBER, RED, GREEN = "#bbdefb", "#b2dfdb", "#ffe0b2", "#ffcdd2", "#c8e6c9"
STRONG = {BLUE: "#1565c0", TEAL: "#00695c", AMBER: "#e65100", RED: "#c62828", GREEN: "#2e7d32"}


class Drawing:
    """An SVG that grows by shapes and texts."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size = width, height
        self._title = title
        self._parts: list[str] = []

    def rect(
        self, x: float, y: float, w: float, h: float, fill: str = "none", ink: str = INK
    ) -> None:
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}" stroke="{ink}"/>'
        )

    def cross(self, x: float, y: float, w: float, h: float) -> None:
        """What is not computed."""
        self._parts.append(
            f'<path d="M{x:g} {y:g}l{w:g} {h:g}M{x + w:g} {y:g}l{-w:g} {h:g}" stroke="{STRONG[RED]}" stroke-width="1.5"/>'
        )

    def line(self, x: float, y: float, to_x: float, to_y: float, ink: str = GRAY) -> None:
        self._parts.append(f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" stroke="{ink}"/>')

    def grid(
        self, x: float, y: float, columns: int, rows: int, cell: float, fill: str = "none"
    ) -> None:
        width, height = columns * cell, rows * cell
        self.rect(x, y, width, height, fill, GRAY)
        lines = [f"M{x + i * cell:g} {y:g}v{height:g}" for i in range(1, columns)]
        lines += [f"M{x:g} {y + i * cell:g}h{width:g}" for i in range(1, rows)]
        self._parts.append(f'<path d="{"".join(lines)}" stroke="{GRAY}" fill="none"/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 13,
        at: str = "start",
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        text = text.replace(" - ", " \N{MINUS SIGN} ")
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{at}"{weight}>{escape(text)}</text>'
        )

    def lines(self, x: float, y: float, texts: Sequence[str], *, size: int = 13) -> None:
        for i, text in enumerate(texts):
            self.text(x, y + i * (size + 5), text, size=size)

    def arrow(self, x: float, y: float, to_x: float, to_y: float, ink: str = INK) -> None:
        self._parts.append(
            f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" stroke="{ink}" stroke-width="1.5" fill="none" marker-end="url(#tip)"/>'
        )

    def svg(self) -> str:
        width, height = self._size
        tip = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-family="system-ui, sans-serif" fill="{INK}" role="img">'
        )
        body = "\n".join(self._parts)
        return f"{head}\n<title>{escape(self._title)}</title>\n{tip}\n{body}\n</svg>\n"


def constant(path: str, name: str, value: str = r"(\d+)[,;]") -> int:
    """A whole number that a source file defines: ``constexpr int NAME = 3;``, or as the expression ``value``."""
    source = (ROOT / path).read_text()
    match = re.search(rf"\b{name} = {value}", source)
    if match is None:
        raise LookupError(f"{path} does not define {name} as a number")
    return int(match[1])


KERNEL = "csrc/cuda/implicit_gemm_kernel.h"
HOPPER = "csrc/cuda/implicit_gemm_hopper.cu"


def gemm() -> Drawing:
    """One block of the implicit matrix product, and what a thread of it copies and holds."""
    rows = 1 << constant("csrc/implicit_gemm.h", "kPatchLog2")
    threads, warp = constant(KERNEL, "kThreads"), constant(KERNEL, "kWarp")
    d = Drawing(920, 560, "A block of the implicit matrix product")
    d.text(
        20, 28, f"One block: {rows} positions x 64 output channels, {threads} threads", bold=True
    )
    # The patch in the picture.
    d.text(20, 58, "where its positions lie")
    d.grid(20, 70, 12, 9, 16)
    d.grid(36, 70, 8, 8, 16, BLUE)
    d.lines(
        20,
        236,
        [
            "here 8 x 8 in each of two frames;",
            "2^a x 2^b x 2^c, a + b + c = 7:",
            "compact, so that whole taps",
            "fall outside the input",
        ],
    )
    # A: rows.
    d.text(270, 58, "A: inputs under one tap")
    d.rect(270, 70, 90, 256, BLUE)
    for i in range(1, 4):
        d.line(270 + 22.5 * i, 70, 270 + 22.5 * i, 326)
        d.line(270, 70 + 64 * i, 360, 70 + 64 * i)
    d.text(315, 344, "64 bytes of channels", at="middle", size=12)
    d.text(315, 360, "(32 of 16 bits)", at="middle", size=12)
    d.text(262, 200, f"{rows}", at="end", size=12)
    # B: the weight.
    d.text(560, 58, "B: that tap's weights")
    d.rect(560, 70, 128, 90, AMBER)
    for i in range(1, 4):
        d.line(560, 70 + 22.5 * i, 688, 70 + 22.5 * i)
    d.text(624, 176, "64 output channels", at="middle", size=12)
    # C: sums.
    d.rect(560, 196, 128, 256)
    for i, (x, y) in enumerate(((560, 196), (624, 196), (560, 324), (624, 324))):
        d.rect(x, y, 64, 128, (TEAL, GREEN, GREEN, TEAL)[i])
        d.text(x + 32, y + 68, f"warp {i}", at="middle", size=12)
    d.text(624, 470, "sums, in float, in registers", at="middle", size=12)
    d.arrow(366, 200, 548, 280)
    d.arrow(704, 110, 740, 110)
    d.lines(
        710,
        214,
        [
            "each of the 4 warps",
            "holds 64 x 32 sums:",
            f"{64 * 32 // warp} in each thread,",
            "as mma.sync gives them",
        ],
        size=12,
    )
    d.lines(
        748,
        90,
        [
            "copied without waiting",
            "(cp.async), 16 bytes a",
            "thread: 4 threads a row,",
            "32 rows at once, 4 times",
        ],
        size=12,
    )
    # Stages.
    d.text(20, 404, "the sum: live taps x slices of channels,", bold=True)
    d.text(20, 422, "of x, then of skip", bold=True)
    x = 20
    for label, fill in (
        ("tap 0, x", BLUE), ("tap 0, skip", TEAL), ("tap 1, x", BLUE), ("tap 1, skip", TEAL),
    ):  # fmt: skip
        d.rect(x, 434, 118, 30, fill)
        d.text(x + 59, 454, label, at="middle", size=12)
        x += 124
    d.lines(
        20,
        508,
        [
            "while one stage is multiplied, two or three more are on their way (3 stages with 128 columns, else 4);",
            "a chunk of 16 bytes lies where eight rows of one column of chunks fall on different banks;",
            "at the end bias, ReLU and residual (inference), or count, mean and squared deviations of the block (training).",
        ],
        size=12,
    )
    return d


def skipped_taps() -> Drawing:
    """Which taps of a dilated kernel a block computes."""
    d = Drawing(920, 330, "Taps that fall on padding are not computed")
    cell, side = 15, 8
    d.text(
        20,
        26,
        "A map of 16 x 16 with a 3 x 3 kernel and dilation 8: what two blocks compute",
        bold=True,
    )
    for left, (px, py), name in (
        (20, (0, 0), "a patch in the corner"),
        (470, (4, 8), "a patch at the lower edge"),
    ):
        x, y = left + 20, 60
        d.text(left, 48, name)
        d.grid(x, y, 16, 16, cell)
        d.rect(x + px * cell, y + py * cell, side * cell, side * cell, BLUE, STRONG[BLUE])
        taps = left + 300
        d.text(taps, 76, "its 9 taps", size=12)
        live = 0
        for i, down in enumerate((-8, 0, 8)):
            for j, right in enumerate((-8, 0, 8)):
                inside = _meets(py + down, side, 16) and _meets(px + right, side, 16)
                live += inside
                d.rect(taps + j * 34, 88 + i * 34, 30, 30, GREEN if inside else "none", GRAY)
                if not inside:
                    d.cross(taps + 6 + j * 34, 94 + i * 34, 18, 18)
        d.text(taps, 214, f"{live} of 9 are computed", size=12)
    d.lines(
        20,
        316,
        [
            "A tap is left out if it reads nothing but padding for all positions of the block: no copies, no products, the same sum."
        ],
        size=12,
    )
    return d


def _meets(first: int, length: int, size: int) -> bool:
    return first + length > 0 and first < size


def hopper() -> Drawing:
    """The warps of a block for capability 9.0, and the ring between them."""
    group, slice_ = constant(HOPPER, "kGroup"), constant(HOPPER, "kSlice")
    consumers, rows = constant(HOPPER, "kConsumers"), constant(HOPPER, "kProductRows")
    copy_registers = constant(HOPPER, "kCopyRegisters")
    product_registers = constant(HOPPER, "kProductRegisters")
    kib = constant(HOPPER, "stages", r"([\d]+) \* 1024 / stage_bytes;")
    stage = (2 * 128 + 128) * 2 * slice_
    stages = kib * 1024 // stage
    d = Drawing(920, 520, "The kernel for compute capability 9.0")
    d.text(
        20,
        28,
        f"One block a multiprocessor, {group * (1 + consumers)} threads, tile after tile (here 2 patches x 128 channels)",
        bold=True,
    )
    d.rect(20, 50, 230, 190, AMBER)
    d.text(34, 74, "one warpgroup copies", bold=True)
    d.lines(
        34,
        98,
        [
            "one thread locates tiles:", "patches, phase, live taps", "",
            "one thread starts the copies:", "TMA, one call a patch and", "one for the weights",
            f"({copy_registers} registers a thread)",
        ],
        size=12,
    )  # fmt: skip
    x0, y0 = 330, 70
    d.text(x0, 56, f"a ring of {stages} stages in shared memory ({kib} KiB)", bold=True)
    for i in range(stages):
        x = x0 + i * 66
        d.rect(x, y0, 56, 60, BLUE)
        d.rect(x, y0 + 60, 56, 40, TEAL)
        d.text(x + 28, y0 + 34, f"A {i}", at="middle", size=12)
        d.text(x + 28, y0 + 84, f"B {i}", at="middle", size=12)
    d.text(
        x0,
        y0 + 122,
        f"A: 2 x 128 positions x {slice_} channels, B: 128 outputs x {slice_} channels,",
        size=12,
    )
    d.text(x0, y0 + 138, "16 bits each: 48 KiB a stage", size=12)
    d.arrow(252, 110, 324, 110)
    d.text(288, 102, "full", at="middle", size=12)
    d.arrow(324, 140, 252, 140)
    d.text(288, 156, "empty", at="middle", size=12)
    for i in range(consumers):
        x = 330 + 300 * i
        d.rect(x, 270, 270, 130, GREEN)
        d.text(x + 14, 294, f"warpgroup {i + 1} multiplies", bold=True)
        d.lines(
            x + 14,
            316,
            [
                f"WGMMA: {rows} x 128 sums, 16 deep;",
                "its own patch, 2 products of 64 rows;",
                f"{2 * 128 // 2} sums in each thread",
                f"({product_registers} registers a thread)",
            ],
            size=12,
        )
        d.arrow(x + 60, 214, x + 60, 264)
    d.lines(
        20,
        432,
        [
            "Barriers in shared memory say when a stage is full (its bytes have come) and when it is empty (all of its products are done).",
            "TMA fills what lies outside the input with zeros by itself, walks over x and then over skip, and writes rows in the order that WGMMA reads.",
            "Taps that only meet padding are left out, as in the other kernel. Tilings: 1 or 2 patches x 64, 128 or 256 channels (not 2 x 256);",
            "the one that needs the fewest clocks by a count of products and copied bytes is taken.",
            "It has been run in the emulator and compiled, not on a card.",
        ],
        size=12,
    )
    return d


def masked_l1() -> Drawing:
    """How sums are added in a fixed order."""
    pixels = constant("csrc/masked_l1.h", "kMaskedL1ChunkPixels")
    threads = constant("csrc/cuda/masked_l1.cu", "kThreads")
    d = Drawing(920, 500, "masked_l1: sums in a fixed order")
    d.text(20, 28, "masked_l1: the same input gives the same bits", bold=True)
    d.text(20, 58, f"a frame's pixels, in chunks of {pixels} whatever the card")
    for i in range(5):
        d.rect(20 + i * 176, 68, 172, 34, BLUE)
        d.text(106 + i * 176, 90, f"chunk {i}", at="middle", size=12)
    d.text(
        20,
        132,
        f"one block a chunk: thread t takes pixels 8t to 8t+7, then {threads * 8} further on (16-bit values; float32: 4)",
    )
    for i in range(16):
        d.rect(20 + i * 54, 144, 50, 26, TEAL if i % 2 else GREEN)
        d.text(45 + i * 54, 161, f"t {i}" if i < 15 else "…", at="middle", size=12)
    d.text(
        20,
        198,
        "each thread: Σ mask·|pred - target| and Σ mask; where the mask is 0 neither pred nor target is read",
    )
    d.text(20, 238, "a warp: halves are exchanged and added, 16, 8, 4, 2, 1 lanes apart", bold=True)
    for level, step in enumerate((16, 8, 4)):
        y = 254 + level * 30
        for lane in range(32):
            d.rect(20 + lane * 17, y, 15, 18, AMBER if lane < step else FAINT, GRAY)
        d.text(576, y + 14, f"lane i + lane i xor {step}", size=12)
    d.text(20, 366, "then: the block's 8 warps one after the other, by thread 0")
    d.arrow(420, 361, 470, 361)
    d.text(478, 366, "one pair of sums a chunk")
    d.rect(20, 384, 860, 62, GREEN)
    d.lines(
        34,
        406,
        [
            "The block that is done last (an atomic counter says which) adds chunks to frames, frames to clips and clips to the loss,",
            "in double, each lane every 32nd part: which block that is changes nothing, for the order is the parts', not the blocks'.",
        ],
        size=12,
    )
    d.text(
        20, 476, "The atomic counts, it does not add: no sum depends on who comes first.", size=12
    )
    return d


def minimal_filtering() -> Drawing:
    """F(2 x 2, 3 x 3) on the CPU."""
    d = Drawing(920, 470, "Minimal filtering of a 3 x 3 convolution on the CPU")
    d.text(
        20,
        28,
        "3 x 3, stride 1: 2 x 2 outputs from a window of 4 x 4 by 16 products instead of 36",
        bold=True,
    )
    d.text(20, 58, "window of inputs d")
    d.grid(20, 70, 4, 4, 34, BLUE)
    d.text(20, 228, "rows, then columns:", size=12)
    d.lines(20, 246, ["d0 - d2", "d1 + d2", "d2 - d1", "d1 - d3"], size=12)
    d.arrow(164, 138, 214, 138)
    d.text(224, 58, "16 sums of inputs v")
    d.grid(224, 70, 4, 4, 34, TEAL)
    d.text(400, 58, "16 sums of taps u")
    d.grid(400, 70, 4, 4, 34, AMBER)
    d.text(400, 228, "made once a layer:", size=12)
    d.lines(400, 246, ["g0", "(g0 + g1 + g2) / 2", "(g0 - g1 + g2) / 2", "g2"], size=12)
    d.text(381, 142, "·", size=22, at="middle")
    d.arrow(544, 138, 594, 138)
    d.text(604, 58, "16 products m, summed")
    d.text(604, 230, "over channels and depth", size=12)
    d.grid(604, 70, 4, 4, 34, GREEN)
    d.arrow(748, 138, 798, 138)
    d.text(808, 58, "outputs y")
    d.grid(808, 104, 2, 2, 34, RED)
    d.lines(770, 228, ["m0 + m1 + m2", "m1 - m2 - m3"], size=12)
    d.text(20, 340, "How a block of tiles runs on one thread", bold=True)
    steps = [
        (
            BLUE,
            ["transform the inputs of", "the block's tiles: stays in", "the second-level cache"],
        ),
        (AMBER, ["for each pair of output", "vectors: 16 small matrix", "products, 8 to 14 tiles"]),
        (GREEN, ["transform the products,", "add bias, ReLU, residual", "on the way"]),
        (RED, ["store 2 x 2 outputs", "a tile"]),
    ]
    for i, (fill, texts) in enumerate(steps):
        d.rect(20 + i * 222, 356, 196, 72, fill)
        d.lines(32 + i * 222, 378, texts, size=12)
        if i < len(steps) - 1:
            d.arrow(218 + i * 222, 392, 240 + i * 222, 392)
    d.text(
        20,
        456,
        "Each output is summed in the same order whatever the block: the number of threads changes no bit.",
        size=12,
    )
    return d


def drawings() -> Iterator[tuple[Path, str]]:
    """Every file and what is to be in it."""
    for name, draw in (
        ("kernel-gemm", gemm),
        ("kernel-taps", skipped_taps),
        ("kernel-hopper", hopper),
        ("kernel-masked-l1", masked_l1),
        ("kernel-minimal-filtering", minimal_filtering),
    ):
        yield FOLDER / f"{name}.svg", draw().svg()


def main(arguments: list[str]) -> int:
    """Write the drawings; with --check only say which are not up to date."""
    stale = [(p, text) for p, text in drawings() if not p.exists() or p.read_text() != text]
    for path, text in stale:
        if arguments == ["--check"]:
            print(f"not up to date: {path.name}")
        else:
            path.write_text(text)
    return int(arguments == ["--check"] and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
