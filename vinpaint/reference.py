# SPDX-License-Identifier: Apache-2.0
"""The operators in plain torch: slow, obvious, and the oracle of every operator test.

Same names and signatures as :mod:`vinpaint.ops`. Nothing here is fused; everything is differentiable
by torch itself and works on any device and dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    skip: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
) -> Tensor:
    """Convolution of the concatenation of ``x`` and ``skip``, padded so that a stride of 1 keeps the size; in 2-D or 3-D."""
    inputs = x if skip is None else torch.cat([x, skip], dim=1)
    kernel = weight.shape[2:]
    flat = len(kernel) == 2
    if transposed:
        padding = [(k - s) // 2 for k, s in zip(kernel, stride, strict=True)]
        transpose = F.conv_transpose2d if flat else F.conv_transpose3d
        return transpose(inputs, weight, bias, tuple(stride), padding)
    padding = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    convolve = F.conv2d if flat else F.conv3d
    return convolve(inputs, weight, bias, tuple(stride), padding, tuple(dilation))


def conv_bn_relu(
    x: Tensor,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    skip: Tensor | None = None,
    residual: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    dilation: Sequence[int] = (1, 1, 1),
    transposed: bool = False,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolution, batch normalisation with the statistics of this batch, ReLU, plus ``residual``.

    Returns ``(out, mean, var)``; ``var`` is the biased variance the normalisation used.
    """
    pre = _convolution(x, weight, None, skip, stride, dilation, transposed)
    wide = pre.to(gamma.dtype)
    var, mean = torch.var_mean(wide, dim=(0, 2, 3, 4), correction=0)
    scale = gamma * torch.rsqrt(var + eps)
    shift = beta - mean * scale
    out = F.relu(wide * scale.view(1, -1, 1, 1, 1) + shift.view(1, -1, 1, 1, 1))
    if residual is not None:
        out = out + residual
    return out.to(x.dtype), mean.detach(), var.detach()


def conv_bias_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    skip: Tensor | None = None,
    residual: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    dilation: Sequence[int] = (1, 1, 1),
    transposed: bool = False,
    relu: bool = True,
) -> Tensor:
    """Convolution, bias, ReLU if asked for, plus ``residual``: batch normalisation folded away."""
    bias = None if bias is None else bias.to(x.dtype)
    out = _convolution(x, weight, bias, skip, stride, dilation, transposed)
    if relu:
        out = F.relu(out)
    return out if residual is None else out + residual


def masked_l1(pred: Tensor, target: Tensor, mask: Tensor, *, per_frame: bool = False) -> Tensor:
    """Mean absolute difference inside the hole, averaged over clips (or over all frames of all clips)."""
    wide = torch.promote_types(pred.dtype, torch.float32)
    dims = (1, 3, 4) if per_frame else (1, 2, 3, 4)
    error = (mask.to(wide) * (pred.to(wide) - target.to(wide)).abs()).sum(dims)
    count = mask.to(wide).sum(dims) * pred.shape[1]
    return torch.where(count > 0, error / count.clamp(min=1), 0).mean()


def prepare_frames(
    frames: Tensor,
    mask: Tensor,
    mean: Tensor,
    *,
    dtype: torch.dtype,
    grid: int,
    full: bool = True,
    reduced: bool = True,
) -> tuple[Tensor, Tensor]:
    """Mean-filled frames with their mask as a fourth channel, padded to the grid; and at half size."""
    x = (frames.to(torch.float32) / torch.iinfo(frames.dtype).max).to(dtype)
    x, hole = x.permute(0, 4, 1, 2, 3), (mask != 0).to(dtype).unsqueeze(1)
    bottom, right = -x.shape[-2] % grid, -x.shape[-1] % grid
    x, hole = (F.pad(t, (0, right, 0, bottom, 0, 0), mode="replicate") for t in (x, hole))
    n, _, f, h, w = x.shape

    def filled(pixels: Tensor, where: Tensor) -> Tensor:
        fill = mean.to(dtype).view(1, 3, 1, 1, 1)
        return torch.cat([torch.where(where > 0, fill, pixels), where], dim=1)

    def quarters(t: Tensor) -> Tensor:
        return t.reshape(n, t.shape[1], f, h // 2, 2, w // 2, 2)

    return (
        filled(x, hole) if full else x.new_empty((0,)),
        filled(quarters(x).mean((4, 6)), quarters(hole).amax((4, 6)))
        if reduced
        else x.new_empty((0,)),
    )


def composite_frames(completed: Tensor, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``completed``, clamped and rounded, in the hole, and ``frames`` elsewhere; and how many are NaN."""
    height, width = frames.shape[2:4]
    fill = completed[..., :height, :width].permute(0, 2, 3, 4, 1).to(torch.float32)
    hole = (mask != 0).unsqueeze(-1)
    invalid = (fill.isnan() & hole).sum(dtype=torch.int32)
    values = (fill.nan_to_num(0).clamp(0, 1) * torch.iinfo(frames.dtype).max).round()
    whole = torch.where(hole, values, frames.to(torch.float32))
    return whole.to(torch.int32).to(frames.dtype), invalid


def follow_flow(
    flow: Tensor, error: Tensor, hole: Tensor, *, frame: int, step: int, reach: int, cell: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`vinpaint.ops.follow_flow`."""
    frames, height, width = hole.shape
    rows, columns = hole[frame].nonzero(as_tuple=True)
    place = torch.stack([columns, rows], -1).to(flow.dtype)
    total = flow.new_zeros(len(rows))
    sources = torch.full((height, width), -1, dtype=torch.int32)
    places, errors = flow.new_zeros((height, width, 2)), flow.new_full((height, width), torch.inf)
    at = frame
    for _ in range(reach):
        if not 0 <= at + step < frames:
            break
        grid = torch.cat([flow[at], error[at, ..., None]], -1)
        way = _between_points(grid, (place - (cell - 1) / 2) / cell)
        place, total = place + way[:, :2], total + way[:, 2]
        at += step
        last = place.new_tensor([width - 1, height - 1])
        alive = total.isfinite() & ((place >= 0) & (place <= last)).all(-1)
        rows, columns, place, total = (t[alive] for t in (rows, columns, place, total))
        # Halves away from zero.
        x, y = (place + 0.5).floor().long().unbind(-1)
        out = hole[at, y, x] == 0
        where = rows[out], columns[out]
        sources[where], places[where], errors[where] = at, place[out], total[out]
        rows, columns, place, total = (t[~out] for t in (rows, columns, place, total))
    return sources, places, errors


def _between_points(grid: Tensor, position: Tensor) -> Tensor:
    """Values (n, C) of a grid (h, w, C) at n columns and rows; a point without weight does not count."""
    height, width, _ = grid.shape
    column = position[:, 0].clamp(0, width - 1)
    row = position[:, 1].clamp(0, height - 1)
    left, top = column.floor().long(), row.floor().long()
    total = grid.new_zeros((len(position), grid.shape[2]))
    for i in (0, 1):
        for j in (0, 1):
            weight = (1 - i + (2 * i - 1) * (row - top)) * (1 - j + (2 * j - 1) * (column - left))
            values = grid[(top + i).clamp_max(height - 1), (left + j).clamp_max(width - 1)]
            total += torch.where(weight[:, None] > 0, weight[:, None] * values, 0)
    return total
