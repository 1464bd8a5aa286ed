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

    def __str__(self) -> str:
        return self.name

    @property
    def out(self) -> tuple[int, ...]:
        if self.transposed:
            return tuple(i * s for i, s in zip(self.clip[1:], self.stride, strict=True))
        return tuple(-(-i // s) for i, s in zip(self.clip[1:], self.stride, strict=True))

    @property
    def padding(self) -> tuple[int, ...]:
        if self.transposed:
            return tuple((k - s) // 2 for k, s in zip(self.kernel, self.stride, strict=True))
        return tuple(d * (k - 1) // 2 for k, d in zip(self.kernel, self.dilation, strict=True))


CASES = [
    Case("plain", (1, 64)),
    Case("frames", (1, 64), kernel=(3, 3, 3), clip=(1, 3, 8, 8)),
    Case("two_inputs", (1, 64), channels=(128, 64, 64), relu=True, residual=True),
    Case("two_patches", (2, 64), clip=(1, 11, 7, 6), residual=True),
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
    Case("stride_in_time", (1, 64), kernel=(3, 3, 3), stride=(2, 2, 2), clip=(2, 5, 9, 13)),
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
        (2, 128),
        kernel=(3, 4, 4),
        stride=(1, 2, 2),
        transposed=True,
        channels=(64, 0, 128),
        clip=(1, 2, 8, 5),
    ),
    Case("deconv_in_time", (2, 64), kernel=(4, 1, 4), stride=(2, 1, 2), transposed=True),
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
            out = F.conv_transpose3d(
                both, weight.transpose(0, 1), stride=self.case.stride, padding=self.case.padding
            )
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
