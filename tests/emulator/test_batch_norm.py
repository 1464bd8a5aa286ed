# SPDX-License-Identifier: Apache-2.0
"""The passes of csrc/cuda/batch_norm.cu, in the emulator, against float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from tolerances import assert_close

EPS = 1e-5
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Rows and channels: one of each, tails of vectors, lanes and blocks, more columns than a block has.
SHAPES = [(1, 1), (3, 3), (65, 5), (200, 6), (777, 16), (130, 64), (66, 257), (9, 1040)]
SEEDS = [1, 7]


class Case(NamedTuple):
    pre: torch.Tensor
    grad_out: torch.Tensor
    norm: torch.Tensor  # gamma, beta, mean, var


def make_case(shape, dtype):
    pre = (torch.randn(shape) * 2 + 3).to(dtype)
    channels = shape[1]
    norm = torch.stack(
        [
            torch.randn(channels),
            torch.randn(channels),
            pre.float().mean(0),
            pre.float().var(0, correction=0) + 0.1,
        ]
    )
    return Case(pre, torch.randn(shape).to(dtype), norm)


def poisoned(*shape, dtype=torch.float32):
    return torch.full(shape, torch.nan, dtype=dtype)


@pytest.fixture(params=SEEDS)
def seed(request, monkeypatch):
    """Another order of blocks and threads."""
    monkeypatch.setenv("VINPAINT_EMULATOR_SEED", str(request.param))


def normal(case):
    """The ReLU's input in float64, the centred input, and the factor of the normalised value."""
    gamma, beta, mean, var = case.norm.double()
    scale = gamma / torch.sqrt(var + EPS)
    centred = case.pre.double() - mean
    return centred * scale + beta, centred, scale


def run_statistics(emulated, x):
    blocks = emulated._pass_sizes(*x.shape, 0)[0]
    partial = (poisoned(blocks), poisoned(blocks, x.shape[1]), poisoned(blocks, x.shape[1]))
    emulated._statistics(x, *partial)
    return partial


def run_merge(emulated, counts, means, deviations):
    blocks, channels = means.shape
    workspace = poisoned(emulated._pass_sizes(1, channels, blocks)[1])
    mean, var = poisoned(channels), poisoned(channels)
    emulated._merge_statistics(counts, means, deviations, workspace, mean, var)
    return mean, var


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("seed")
def test_statistics(emulated, dtype, shape):
    x = make_case(shape, dtype).pre
    counts, means, deviations = run_statistics(emulated, x)
    assert counts.sum() == shape[0]
    size = int(counts[0])
    for i, rows in enumerate(x.double().split(size)):
        assert counts[i] == len(rows)
        assert_close(means[i], rows.mean(0), torch.float32)
        assert_close(deviations[i], rows.var(0, correction=0) * len(rows), torch.float32)
    mean, var = run_merge(emulated, counts, means, deviations)
    assert_close(mean, x.double().mean(0), torch.float32)
    assert_close(var, x.double().var(0, correction=0), torch.float32)


def test_statistics_of_many_blocks(emulated):
    rows = 70_000
    assert emulated._pass_sizes(rows, 4, 0)[0] == 1015  # of more rows than the least
    x = torch.randn(rows, 4) + torch.linspace(0, 5, rows)[:, None]
    mean, var = run_merge(emulated, *run_statistics(emulated, x))
    assert_close(mean, x.double().mean(0), torch.float32)
    assert_close(var, x.double().var(0, correction=0), torch.float32)


def test_a_large_offset_costs_no_digits(emulated):
    x = torch.randn(5000, 8) * 0.01 + 1000
    _, var = run_merge(emulated, *run_statistics(emulated, x))
    torch.testing.assert_close(
        var.double(), x.double().var(0, correction=0), rtol=1e-4, atol=0, check_dtype=False
    )


@pytest.mark.parametrize("blocks", [1, 31, 2048, 2049, 9000])
@pytest.mark.usefixtures("seed")
def test_merge_statistics(emulated, blocks):
    channels = 35
    counts = torch.randint(0, 3, (blocks,)).float() * 64
    counts[-1] = 5
    means = torch.randn(blocks, channels) + torch.linspace(0, 3, blocks)[:, None]
    deviations = torch.rand(blocks, channels) * counts[:, None]
    weight = counts.double()[:, None]
    expected_mean = (weight * means).sum(0) / counts.sum()
    between = (weight * (means.double() - expected_mean) ** 2).sum(0)
    expected_var = (deviations.double().sum(0) + between) / counts.sum()
    means[counts == 0] = torch.nan  # may be left unwritten
    deviations[counts == 0] = torch.nan
    mean, var = run_merge(emulated, counts, means, deviations)
    assert_close(mean, expected_mean, torch.float32)
    assert_close(var, expected_var, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_residual", [False, True])
def test_normalise_relu(emulated, dtype, shape, with_residual):
    case = make_case(shape, dtype)
    residual = torch.randn(shape).to(dtype) if with_residual else None
    out = poisoned(*shape, dtype=dtype)
    emulated._normalise_relu(case.pre, case.norm, EPS, residual, out)
    expected = normal(case)[0].relu()
    assert_close(out, expected if residual is None else expected + residual.double(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("seed")
def test_normalise_relu_gradients(emulated, dtype, shape):
    case = make_case(shape, dtype)
    rows, channels = shape
    workspace = poisoned(emulated._pass_sizes(rows, channels, 0)[2])
    sums, grad_pre = poisoned(4, channels), poisoned(rows, channels, dtype=dtype)
    emulated._normalise_relu_sums(case.grad_out, case.pre, case.norm, EPS, workspace, sums)
    emulated._normalise_relu_backward(case.grad_out, case.pre, case.norm, EPS, sums, grad_pre)

    y, centred, scale = normal(case)
    rstd = 1 / torch.sqrt(case.norm[3].double() + EPS)
    g = case.grad_out.double() * (y > 0)
    grad_beta, grad_gamma = g.sum(0), (g * centred).sum(0) * rstd
    offset, slope = scale / rows * grad_beta, scale / rows * grad_gamma * rstd
    for actual, expected in zip(sums, (grad_gamma, grad_beta, offset, slope), strict=True):
        assert_close(actual, expected, torch.float32)
    assert_close(grad_pre, scale * g - offset - slope * centred, dtype)


def test_normalise_relu_gradients_are_batch_norms(emulated):
    """With the batch's own statistics, against torch's autograd."""
    pre = torch.randn(500, 24, dtype=torch.float64, requires_grad=True)
    gamma, beta = (torch.randn(24, dtype=torch.float64, requires_grad=True) for _ in range(2))
    grad_out = torch.randn(500, 24, dtype=torch.float64)
    out = torch.nn.functional.batch_norm(pre, None, None, gamma, beta, training=True, eps=EPS)
    out.relu().backward(grad_out)

    stored = pre.detach().float()
    mean, var = run_merge(emulated, *run_statistics(emulated, stored))
    norm = torch.stack([gamma.detach().float(), beta.detach().float(), mean, var])
    sums, grad_pre = poisoned(4, 24), poisoned(500, 24)
    workspace = poisoned(emulated._pass_sizes(500, 24, 0)[2])
    emulated._normalise_relu_sums(grad_out.float(), stored, norm, EPS, workspace, sums)
    emulated._normalise_relu_backward(grad_out.float(), stored, norm, EPS, sums, grad_pre)
    for actual, expected in zip((*sums[:2], grad_pre), (gamma, beta, pre), strict=True):
        assert_close(actual, expected.grad, torch.float32, gradient=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("relu", [False, True])
def test_relu_backward(emulated, dtype, shape, relu):
    grad_out, out = make_case(shape, dtype).grad_out, torch.randn(shape).to(dtype)
    out[0] = 0  # closed
    workspace = poisoned(emulated._pass_sizes(*shape, 0)[3])
    grad, total = poisoned(*shape, dtype=dtype), poisoned(shape[1])
    emulated._relu_backward(grad_out, out if relu else None, relu, workspace, grad, total)
    expected = grad_out * (out > 0) if relu else grad_out
    assert torch.equal(grad, expected)
    assert_close(total, expected.double().sum(0), torch.float32)

    only_grad = poisoned(*shape, dtype=dtype)
    emulated._relu_backward(grad_out, out, relu, None, only_grad, None)
    assert torch.equal(only_grad, expected)
    only_sum = poisoned(shape[1])
    emulated._relu_backward(grad_out, out, relu, workspace, None, only_sum)
    assert torch.equal(only_sum, total)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("present", ["", "b", "or", "bo", "bor"])
def test_finish(emulated, dtype, shape, present):
    base = torch.randn(shape).to(dtype)
    bias = torch.randn(shape[1]) if "b" in present else None
    other, residual = (torch.randn(shape).to(dtype) if k in present else None for k in "or")
    for relu in (False, True):
        expected = base.double()
        for t in (other, bias):
            expected = expected if t is None else expected + t.double()
        expected = expected.relu() if relu else expected
        out = base.clone()
        emulated._finish(out, other, bias, residual, relu)
        assert_close(out, expected if residual is None else expected + residual.double(), dtype)


def test_not_a_number_passes_through(emulated):
    case = make_case((9, 8), torch.float32)
    case.pre[4, 3] = torch.nan
    out = poisoned(9, 8)
    emulated._normalise_relu(case.pre, case.norm, EPS, None, out)
    assert out.isnan().sum() == 1
    out = case.pre.clone()
    emulated._finish(out, None, None, None, True)
    assert out.isnan().sum() == 1


def test_tensors_that_are_not_aligned(emulated):
    """Views that begin in the middle of 16 bytes are taken value by value."""
    pre = (torch.randn(40 * 16 + 1)[1:]).view(40, 16)
    case = make_case((40, 16), torch.float32)._replace(pre=pre)
    out = poisoned(40, 16)
    emulated._normalise_relu(pre, case.norm, EPS, None, out)
    assert_close(out, normal(case)[0].relu(), torch.float32)


def test_same_bits_whatever_the_order(emulated, monkeypatch):
    case = make_case((9000, 20), torch.bfloat16)
    workspace = poisoned(max(emulated._pass_sizes(9000, 20, 0)))
    results = []
    for order in range(4):
        monkeypatch.setenv("VINPAINT_EMULATOR_SEED", str(order))
        sums, total = poisoned(4, 20), poisoned(20)
        mean, var = run_merge(emulated, *run_statistics(emulated, case.pre))
        emulated._normalise_relu_sums(case.grad_out, case.pre, case.norm, EPS, workspace, sums)
        emulated._relu_backward(case.grad_out, case.pre, True, workspace, None, total)
        results.append(torch.cat([mean, var, sums.flatten(), total]))
    assert all(torch.equal(r, results[0]) for r in results)
