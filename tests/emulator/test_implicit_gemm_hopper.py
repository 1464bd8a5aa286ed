# SPDX-License-Identifier: Apache-2.0
"""csrc/cuda/implicit_gemm_hopper.cu, in the emulator, against float64.

The emulated device has 3 multiprocessors, so that a block computes several tiles.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F

FLAT = (1, 3, 3)
DTYPES = [torch.bfloat16, torch.float16]
# What rounding to the stored type and the order of float sums leave, relative to the largest value.
TOLERANCE = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


@dataclass(frozen=True)
class Case:
    name: str
    tile: tuple[int, int]  # patches and columns of the tiling that must be chosen
    kernel: tuple[int, int, int] = FLAT
    stride: tuple[int, int, int] = (1, 1, 1)
    dilation: tuple[int, int, int] = (1, 1, 1)
    transposed: bool = False
    clip: tuple[int, int, int, int] = (1, 2, 8, 8)  # N, F, H, W
    channels: tuple[int, int, int] = (64, 0, 64)  # Cx, Cskip, Cout
    patch: tuple[int, int, int] = (1, 3, 3)
    relu: bool = False
    residual: bool = False
    weight: str = "taps"  # what is next to what after the channels: taps or outputs
    crop: int = 0  # of a transposed output, along all axes with a stride

    def __str__(self) -> str:
        return self.name

    @property
    def out(self) -> tuple[int, ...]:
        if self.transposed:
            return tuple(
                i * s - self.crop * (s > 1) for i, s in zip(self.clip[1:], self.stride, strict=True)
            )
        return tuple(-(-i // s) for i, s in zip(self.clip[1:], self.stride, strict=True))

    @property
    def padding(self) -> tuple[int, ...]:
        return tuple(d * (k - 1) // 2 for k, d in zip(self.kernel, self.dilation, strict=True))


CASES = [
    Case("plain", (1, 64)),
    Case("frames", (1, 64), kernel=(3, 3, 3), clip=(1, 3, 8, 8)),
    Case("two_inputs", (1, 64), channels=(128, 64, 64), relu=True, residual=True),
    Case("two_patches", (2, 64), clip=(1, 11, 7, 6), residual=True),
    Case("second_patch_missing", (2, 64), clip=(1, 9, 8, 8), residual=True),
    Case("columns_128", (1, 128), channels=(64, 64, 128), clip=(1, 5, 6, 8), relu=True),
    Case(
        "two_patches_of_128",
        (2, 128),
        channels=(64, 0, 128),
        clip=(2, 5, 9, 7),
        residual=True,
    ),
    Case("columns_256", (1, 256), channels=(64, 0, 256), clip=(1, 11, 8, 7), relu=True),
    Case("columns_192", (2, 64), channels=(64, 0, 192), clip=(1, 4, 8, 8)),
    Case("several_column_tiles", (1, 256), channels=(64, 0, 512), clip=(1, 3, 8, 8)),
    Case("odd", (2, 64), kernel=(3, 3, 3), clip=(2, 3, 9, 13), relu=True, residual=True),
    Case("square_patches", (2, 128), channels=(64, 0, 128), clip=(1, 1, 19, 21), patch=(0, 4, 3)),
    Case("long_patches", (1, 64), clip=(1, 9, 5, 3), patch=(3, 2, 2)),
    Case("patch_of_a_row", (1, 64), clip=(1, 1, 2, 130), patch=(0, 0, 7), relu=True),
    Case("dilation_2", (2, 64), dilation=(1, 2, 2), clip=(1, 5, 11, 12)),
    Case("dilation_8", (1, 256), dilation=(1, 8, 8), channels=(64, 0, 256), clip=(1, 3, 16, 16)),
    Case("dilation_in_time", (1, 64), kernel=(3, 3, 3), dilation=(2, 4, 4), clip=(1, 3, 8, 8)),
    Case("beyond_the_frame", (2, 64), dilation=(1, 16, 16), clip=(1, 9, 9, 10)),
    Case("stride", (2, 64), stride=(1, 2, 2), clip=(1, 9, 17, 14), residual=True),
    Case("stride_in_time", (2, 64), kernel=(3, 3, 3), stride=(2, 2, 2), clip=(2, 5, 9, 13)),
    Case("kernel_5", (1, 128), kernel=(1, 5, 5), channels=(64, 0, 128), clip=(1, 2, 8, 9)),
    Case("pointwise", (1, 64), kernel=(1, 1, 1), channels=(128, 0, 64)),
    Case(
        "deconv",
        (2, 64),
        kernel=(1, 4, 4),
        stride=(1, 2, 2),
        transposed=True,
        channels=(64, 64, 64),
        clip=(1, 3, 9, 7),
        relu=True,
        residual=True,
    ),
    Case(
        "deconv_frames",
        (1, 128),
        kernel=(3, 4, 4),
        stride=(1, 2, 2),
        transposed=True,
        channels=(64, 0, 128),
        clip=(1, 2, 8, 5),
    ),
    Case("deconv_in_time", (1, 64), kernel=(4, 1, 4), stride=(2, 1, 2), transposed=True),
    # Input gradients: of a dilated, of a strided and of a strided pointwise convolution.
    Case("gradient_of_dilation", (2, 64), dilation=(1, 2, 2), transposed=True, clip=(1, 9, 9, 7)),
    Case(
        "gradient_of_stride",
        (2, 64),
        kernel=(3, 3, 3),
        stride=(2, 2, 2),
        transposed=True,
        clip=(1, 3, 5, 4),
        crop=1,
        relu=True,
    ),
    Case(
        "phases_without_taps",
        (2, 64),
        kernel=(1, 1, 1),
        stride=(1, 2, 2),
        transposed=True,
        clip=(1, 9, 4, 5),
        residual=True,
    ),
    Case("weight_by_taps", (1, 64), weight="outputs"),
    Case("no_patch_given", (2, 64), clip=(1, 2, 10, 17), patch=()),
]
BY_NAME = {case.name: case for case in CASES}


def among_nan(t):
    """``t`` as it lies, in a storage that is NaN before and behind it."""
    storage = torch.full((t.numel() + 128,), torch.nan, dtype=t.dtype)
    return storage[64:-64].view(t.shape).copy_(t)


class Problem:
    """Inputs of one case, its result in float64, and what the kernel made of it."""

    def __init__(self, case, dtype, *, bias=True):
        self.case, self.dtype = case, dtype
        n, *sizes = case.clip
        cx, cs, cout = case.channels
        fan = (cx + cs) * case.kernel[0] * case.kernel[1] * case.kernel[2]
        self.x = torch.randn(n, *sizes, cx).to(dtype)
        self.skip = torch.randn(n, *sizes, cs).to(dtype) if cs else None
        self.weight = (torch.randn(cout, *case.kernel, cx + cs) / fan**0.5).to(dtype)
        self.bias = torch.randn(cout) if bias else None
        self.residual = torch.randn(n, *case.out, cout).to(dtype) if case.residual else None

    def expected(self):
        both = torch.cat([self.x, self.skip], -1) if self.skip is not None else self.x
        both = both.double().permute(0, 4, 1, 2, 3)
        weight = self.weight.double().permute(0, 4, 1, 2, 3)
        if self.case.transposed:
            case, weight = self.case, weight.transpose(0, 1)
            options = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
            least = F.conv_transpose3d(both, weight, **options).shape[2:]
            more = [o - i for o, i in zip(case.out, least, strict=True)]
            out = F.conv_transpose3d(both, weight, **options, output_padding=more)
        else:
            out = F.conv3d(
                both,
                weight,
                stride=self.case.stride,
                padding=self.case.padding,
                dilation=self.case.dilation,
            )
        out = out.permute(0, 2, 3, 4, 1)
        if self.bias is not None:
            out = out + self.bias.double()
        if self.case.relu:
            out = out.relu()
        return out if self.residual is None else out + self.residual.double()

    def run(self, emulated, *, statistics=False):
        """The output; with ``statistics`` also their parts. Checks that nothing else is written."""
        case = self.case
        n, (*out, cout) = case.clip[0], (*case.out, case.channels[2])
        weight = self.weight
        if case.weight == "outputs":  # (taps, outputs, channels) in memory
            weight = weight.permute(1, 2, 3, 0, 4).contiguous()
        weight = among_nan(weight)
        if case.weight == "outputs":
            weight = weight.permute(3, 0, 1, 2, 4)
        storage = torch.full((n * out[0] * out[1] * out[2] * cout + 128,), torch.nan).to(self.dtype)
        result = storage[64:-64].view(n, *out, cout)

        def launch(result, *parts):
            return emulated._implicit_gemm_hopper(
                among_nan(self.x),
                None if self.skip is None else among_nan(self.skip),
                weight,
                None if self.bias is None else among_nan(self.bias),
                None if self.residual is None else among_nan(self.residual),
                result,
                case.stride,
                case.dilation,
                case.padding,
                case.transposed,
                case.relu,
                case.patch,
                *parts,
            )[0]

        blocks = launch(result[:0], None, None, None)
        parts = [torch.full((blocks, *c), torch.nan) for c in ((), (cout,), (cout,))]
        emulated._counters()
        launch(result, *(parts if statistics else (None, None, None)))
        self.products = emulated._counters()[2]
        assert storage[:64].isnan().all()
        assert storage[-64:].isnan().all()
        return (result, *parts) if statistics else result

    def assert_close(self, actual):
        expected = self.expected()
        scale = expected.abs().max().item()
        torch.testing.assert_close(
            actual.double(), expected, rtol=TOLERANCE[self.dtype], atol=1e-5 * scale
        )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_output(emulated, case):
    problem = Problem(case, torch.bfloat16)
    problem.assert_close(problem.run(emulated))


@pytest.mark.parametrize("name", ["two_inputs", "two_patches_of_128", "columns_256", "deconv"])
def test_half(emulated, name):
    problem = Problem(BY_NAME[name], torch.float16, bias=False)
    problem.assert_close(problem.run(emulated))


def live_taps(case, axis, phase, first):
    """Which taps of one axis, in the order of the product, touch the input from a patch."""
    size, kernel = case.clip[1 + axis], case.kernel[axis]
    stride, pad = case.stride[axis], case.padding[axis]
    if case.transposed:
        from_tap = [phase + pad - case.dilation[axis] * k for k in range(kernel)]
        taps = [t // stride for t in from_tap if t % stride == 0]
        positions, step = -(-case.out[axis] // stride), 1
    else:
        taps = [case.dilation[axis] * k - pad for k in range(kernel)]
        positions, step = case.out[axis], stride
    last = min(first + 2 ** case.patch[axis], positions) - 1
    return {j for j, t in enumerate(taps) if step * last + t >= 0 and step * first + t < size}


def expected_products(case):
    """Products of the case's tiles: of two patches, the taps between the outermost of both."""
    patches, columns = case.tile
    phases = case.stride if case.transposed else (1, 1, 1)
    positions = [-(-o // p) for o, p in zip(case.out, phases, strict=True)]
    firsts = [range(0, p, 2**n) for p, n in zip(positions, case.patch, strict=True)]
    all_patches = [
        (f, h, w)
        for _ in range(case.clip[0])
        for h in firsts[1]
        for w in firsts[2]
        for f in firsts[0]
    ]
    products = 0
    for phase in itertools.product(*map(range, phases)):
        for i in range(0, len(all_patches), patches):
            steps = (case.channels[0] + case.channels[1]) // 64
            for axis in range(3):
                live = set.union(
                    *(
                        live_taps(case, axis, phase[axis], p[axis])
                        for p in all_patches[i : i + patches]
                    )
                )
                steps *= max(live) - min(live) + 1 if live else 0
            products += steps * patches * 128 * columns * 64 * (case.channels[2] // columns)
    return products


@pytest.mark.parametrize("case", [c for c in CASES if c.patch], ids=str)
def test_taps_outside_the_input_are_not_computed(emulated, case):
    problem = Problem(case, torch.bfloat16)
    problem.run(emulated)
    assert problem.products == expected_products(case)


@pytest.mark.parametrize(
    "name",
    ["second_patch_missing", "columns_128", "two_patches_of_128", "columns_256", "odd", "deconv"],
)
def test_statistics(emulated, name):
    problem = Problem(replace(BY_NAME[name], relu=False), torch.bfloat16)
    out, counts, means, deviations = (t.double() for t in problem.run(emulated, statistics=True))
    problem.assert_close(out)
    values = out.flatten(0, 3)
    assert counts.sum() == len(values)
    mean = (counts[:, None] * means).sum(0) / counts.sum()
    squares = (deviations + counts[:, None] * (means - mean) ** 2).sum(0)
    torch.testing.assert_close(mean, values.mean(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        squares, len(values) * values.var(0, correction=0), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("name", ["two_inputs", "two_patches_of_128", "columns_256", "deconv"])
def test_order_of_execution_does_not_matter(emulated, monkeypatch, name):
    problem = Problem(BY_NAME[name], torch.bfloat16)
    runs = []
    for seed in range(3):
        monkeypatch.setenv("VINPAINT_EMULATOR_SEED", str(seed))
        runs.append(problem.run(emulated, statistics=True))
    for run in runs[1:]:
        for actual, first in zip(run, runs[0], strict=True):
            assert torch.equal(actual, first)


@pytest.mark.parametrize("channels", [(32, 0, 64), (64, 32, 64), (64, 0, 96)])
def test_other_channels_are_refused(emulated, channels):
    problem = Problem(replace(BY_NAME["plain"], channels=channels), torch.bfloat16)
    with pytest.raises(RuntimeError, match="not a product"):
        problem.run(emulated)
