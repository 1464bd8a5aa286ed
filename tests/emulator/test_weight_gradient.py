# SPDX-License-Identifier: Apache-2.0
"""csrc/cuda/weight_gradient.cu, in the emulator, against float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from convolution_cases import CASES, Case

FLAT = (1, 3, 3)
# The cases of the operators have few channels, mostly odd. These fill the blocks of the kernel: 32,
# 64 and 128 rows and their tails, blocks of one tap and of several, units of 16 and of 8 bytes.
WIDE = [
    Case("rows_32", channels=(16, 8, 24), clip=(1, 3, 6, 5)),
    Case("rows_64", kernel=FLAT, channels=(32, 64, 48), clip=(1, 2, 9, 8)),
    Case("rows_128", kernel=FLAT, channels=(64, 8, 136), clip=(1, 2, 6, 7)),
    Case(
        "one_tap_a_block",
        kernel=FLAT,
        dilation=(1, 4, 4),
        channels=(128, 128, 72),
        clip=(1, 2, 7, 6),
    ),
    Case("all_padding", dilation=(8, 16, 16), channels=(128, 8, 16), clip=(1, 2, 5, 4)),
    Case("stride_2", stride=(2, 2, 2), channels=(32, 40, 64), clip=(2, 4, 7, 6)),
    Case(
        "deconv_wide",
        kernel=(3, 4, 4),
        stride=(1, 2, 2),
        transposed=True,
        channels=(80, 72, 16),
        clip=(1, 2, 4, 5),
    ),
    Case("few_rows", kernel=FLAT, channels=(32, 16, 3), clip=(1, 2, 12, 11)),
    Case("few_columns", kernel=(5, 5, 5), channels=(4, 3, 16), clip=(1, 4, 8, 9)),
    Case("few_columns_many_rows", kernel=FLAT, channels=(3, 4, 72), clip=(1, 3, 9, 8)),
]
BY_NAME = {case.name: case for case in CASES + WIDE if case.name != "wide_blocks"}
# Stored type, exactness, and the error for each unit of the sum of all magnitudes: half the last
# place of what is stored, of TF32 factors, or some roundings of float sums.
MODES = {
    "bfloat16": (torch.bfloat16, False, 1e-6),
    "float16": (torch.float16, False, 1e-6),
    "tf32": (torch.float32, False, 1e-3),
    "exact": (torch.float32, True, 1e-6),
}
MOST_WORKSPACE = 1 << 24
LAST_PLACE = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-23}


def guarded(shape, dtype, before=64):
    """A dense tensor of NaN, and the storage of NaN in which it lies."""
    count = math.prod(shape)
    storage = torch.full((count + 2 * before,), torch.nan, dtype=dtype)
    return storage[before : before + count].view(shape), storage


def embedded(t, *, odd):
    """``t`` channels last with NaN before and behind it; ``odd``: misaligned."""
    n, c, f, h, w = t.shape
    inside, _ = guarded((n, f, h, w, c), t.dtype, before=33 if odd else 64)
    return inside.copy_(t.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Problem:
    """Inputs of one case, and what the gradient of its weight must be."""

    def __init__(self, case, dtype):
        self.case = case
        n, f, h, w = case.clip
        cx, cs, cout = case.channels
        if case.transposed:
            out = [size * s for size, s in zip((f, h, w), case.stride, strict=True)]
            shape = (cx + cs, cout, *case.kernel)
            self.padding = [(k - s) // 2 for k, s in zip(case.kernel, case.stride, strict=True)]
        else:
            out = [-(-size // s) for size, s in zip((f, h, w), case.stride, strict=True)]
            shape = (cout, cx + cs, *case.kernel)
            self.padding = [
                d * (k - 1) // 2 for k, d in zip(case.kernel, case.dilation, strict=True)
            ]
        self.x = torch.randn(n, cx, f, h, w).to(dtype)
        self.skip = torch.randn(n, cs, f, h, w).to(dtype)
        self.grad = torch.randn(n, cout, *out).to(dtype)
        both = torch.cat([self.x, self.skip], dim=1).double()
        self.expected = self._gradient(both, self.grad.double(), shape)
        self.magnitude = self._gradient(both.abs(), self.grad.double().abs(), shape)

    def _gradient(self, x, grad, shape):
        weight = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        convolve = (
            torch.nn.functional.conv_transpose3d
            if self.case.transposed
            else torch.nn.functional.conv3d
        )
        options = {} if self.case.transposed else {"dilation": self.case.dilation}
        out = convolve(x, weight, stride=self.case.stride, padding=self.padding, **options)
        (gradient,) = torch.autograd.grad(out, weight, grad)
        return gradient

    def run(self, emulated, *, exact=False, splits=0, odd=False, with_skip=True):
        """The gradient by the kernel."""
        first, second, *kernel = self.expected.shape
        taps = math.prod(kernel)
        result, result_storage = guarded((first, taps, second), self.x.dtype)
        cx, cs, _ = self.case.channels
        axis = 0 if self.case.transposed else 2
        parts = [(self.x, result.narrow(axis, 0, cx)), (self.skip, result.narrow(axis, cx, cs))]
        step = [1, 1, 1] if self.case.transposed else self.case.dilation
        geometry = (kernel, self.case.stride, [-p for p in self.padding], step)
        emulated._counters()
        for tensor, out in parts[: 1 + with_skip]:
            rows, gathered = embedded(self.grad, odd=odd), embedded(tensor, odd=odd)
            if self.case.transposed:
                rows, gathered = gathered, rows
            if splits > 1:
                count = splits * rows.shape[1] * taps * gathered.shape[1]
            elif splits == 1:
                count = 0
            else:
                sizes = (rows.shape, gathered.shape)
                count = emulated._weight_gradient_plan(*sizes, *geometry, exact, MOST_WORKSPACE)[2]
            workspace, workspace_storage = guarded((count,), torch.float32)
            emulated._weight_gradient(
                rows, gathered, *geometry, result.stride(), exact, splits, workspace, out
            )
            assert (~workspace_storage.isnan()).sum() == count
        written = result.numel() if with_skip else result.numel() * cx // (cx + cs)
        assert (~result_storage.isnan()).sum() == written
        return result.view(first, *kernel, second).permute(0, 4, 1, 2, 3)

    def check(self, actual, mode):
        dtype, _, error = MODES[mode]
        bound = LAST_PLACE[dtype] * self.expected.abs() + error * self.magnitude
        if dtype == torch.float16:
            bound += 2**-25  # below the normal numbers
        wrong = ~((actual.double() - self.expected).abs() <= bound)  # also NaN
        assert not wrong.any(), (
            f"{int(wrong.sum())} of {wrong.numel()} values, at first {wrong.nonzero()[0].tolist()}"
        )


@pytest.mark.parametrize(
    ("case", "mode"),
    [(case, mode) for case in CASES for mode in ("bfloat16", "exact")]
    + [(case, mode) for case in WIDE for mode in MODES],
    ids=str,
)
def test_matches_float64(emulated, case, mode):
    dtype, exact, _ = MODES[mode]
    problem = Problem(case, dtype)
    actual = problem.run(emulated, exact=exact)
    problem.check(actual, mode)
    _, conflicts, _ = emulated._counters()
    assert conflicts == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "splits"),
    [("one_tap_a_block", 2), ("few_rows", 1), ("few_rows", 16), ("few_rows", 70)],
)
def test_any_number_of_splits(emulated, name, splits, mode):
    dtype, exact, _ = MODES[mode]
    problem = Problem(BY_NAME[name], dtype)
    actual = problem.run(emulated, exact=exact, splits=splits)
    problem.check(actual, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["rows_32", "few_columns_many_rows", "deconv_wide"])
def test_misaligned_tensors(emulated, name, mode):
    dtype, exact, _ = MODES[mode]
    problem = Problem(BY_NAME[name], dtype)
    actual = problem.run(emulated, exact=exact, odd=True)
    problem.check(actual, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["rows_32", "few_rows"])
def test_the_same_bits_in_any_order(emulated, monkeypatch, name, mode):
    dtype, exact, _ = MODES[mode]
    problem = Problem(BY_NAME[name], dtype)
    results = []
    for seed in (1, 1, 2, 77):
        monkeypatch.setenv("VINPAINT_EMULATOR_SEED", str(seed))
        results.append(problem.run(emulated, exact=exact, splits=5))
    for other in results[1:]:
        assert torch.equal(results[0], other)


def plan(emulated, cout, cin, kernel, size, *, stride=1, dilation=1, most=MOST_WORKSPACE):
    """Of a convolution of 32 frames to ``size`` x ``size`` pixels."""
    along = (1, stride, stride)
    step = (1, dilation, dilation)
    first = [-(d * (k - 1) // 2) for k, d in zip(kernel, step, strict=True)]
    rows, gathered = (1, cout, 32, size, size), (1, cin, 32, size * stride, size * stride)
    return emulated._weight_gradient_plan(rows, gathered, kernel, along, first, step, False, most)


def test_few_rows_are_taken_as_columns(emulated):
    assert plan(emulated, 3, 32, FLAT, 128)[3]
    assert not plan(emulated, 128, 3, FLAT, 64)[3]
    assert not plan(emulated, 3, 32, FLAT, 64, stride=2)[3]
    strided = replace(BY_NAME["few_rows"], stride=(1, 2, 2))
    problem = Problem(strided, torch.bfloat16)
    problem.check(problem.run(emulated), "bfloat16")


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ((16, 4, (5, 5, 5), 64), {}),
        ((64, 4, (1, 5, 5), 128), {}),
        ((128, 64, (3, 3, 3), 16), {"stride": 2}),
        ((256, 256, (3, 3, 3), 16), {"dilation": 8}),
        ((256, 256, FLAT, 32), {"dilation": 16}),
        ((3, 32, FLAT, 128), {}),
    ],
)
def test_splits_fill_the_multiprocessors(emulated, layer, options):
    splits, blocks, workspace, _ = plan(emulated, *layer, **options)
    assert 0.75 * 2 * 132 <= blocks <= 4 * 4 * 132
    assert splits > 1
    assert workspace <= MOST_WORKSPACE
    # Half the workspace, half the splits, and at last none.
    assert plan(emulated, *layer, **options, most=workspace // 2)[0] <= splits // 2
    assert plan(emulated, *layer, **options, most=0)[:3:2] == [1, 0]


def test_taps_on_padding_are_not_multiplied(emulated):
    """With a dilation of half the frame a corner tap sees a quarter of it."""
    near = Case("near", kernel=FLAT, clip=(1, 4, 8, 8), channels=(128, 1, 128))
    products = []
    for dilation in ((1, 1, 1), (1, 4, 4), (1, 8, 8)):
        problem = Problem(replace(near, dilation=dilation), torch.bfloat16)
        problem.run(emulated, splits=1, with_skip=False)
        products.append(emulated._counters()[2])
    # Positions along an axis that each of its taps sees.
    live = [(7, 8, 7), (4, 8, 4), (0, 8, 0)]
    stages = [sum(math.ceil(4 * h * w / 32) for h in axis for w in axis) for axis in live]
    assert products == [128 * 128 * 32 * count for count in stages]
