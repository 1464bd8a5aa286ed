# SPDX-License-Identifier: Apache-2.0
"""Shapes on which the convolution operators are tested, and how to make tensors for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vinpaint import reference


@dataclass(frozen=True)
class Case:
    name: str
    kernel: tuple[int, int, int] = (3, 3, 3)
    stride: tuple[int, int, int] = (1, 1, 1)
    dilation: tuple[int, int, int] = (1, 1, 1)
    transposed: bool = False
    clip: tuple[int, int, int, int] = (2, 3, 9, 7)  # N, F, H, W
    channels: tuple[int, int, int] = (5, 4, 6)  # Cx, Cskip, Cout

    def __str__(self) -> str:
        return self.name

    @property
    def options(self) -> dict:
        return {"stride": self.stride, "dilation": self.dilation, "transposed": self.transposed}


CASES = [
    Case("plain"),
    Case("stride", stride=(1, 2, 2)),
    Case("stride_all", stride=(2, 2, 2)),
    Case("dilation", dilation=(1, 3, 3)),
    Case("dilation_beyond_the_frame", dilation=(1, 8, 8)),
    Case("kernel_5", kernel=(5, 5, 5), channels=(4, 3, 16)),
    Case("flat", kernel=(1, 3, 3), channels=(16, 16, 32)),
    Case("flat_stride", kernel=(1, 3, 3), stride=(1, 2, 2)),
    Case("flat_dilation", kernel=(1, 3, 3), dilation=(1, 4, 4)),
    Case("pointwise", kernel=(1, 1, 1)),
    Case("deconv", kernel=(3, 4, 4), stride=(1, 2, 2), transposed=True),
    Case("deconv_flat", kernel=(1, 4, 4), stride=(1, 2, 2), transposed=True),
    Case("one_pixel", clip=(1, 1, 1, 1)),
    Case("one_frame", kernel=(1, 3, 3), clip=(1, 1, 6, 5)),
    # A strided output one pixel wide: oneDNN has returned wrong values for it in bfloat16.
    Case("column_stride", kernel=(1, 3, 3), stride=(1, 2, 2), clip=(2, 2, 9, 1)),
    Case("two_columns_stride", stride=(1, 2, 2), clip=(2, 3, 9, 2), channels=(16, 16, 32)),
    Case("one_channel", channels=(1, 1, 1)),
]
# Channels enough for minimal filtering, none of them a multiple of its vectors; odd sizes.
WIDE = [
    Case("narrow_beside_wide", kernel=(1, 3, 3), channels=(8, 40, 64), clip=(1, 2, 9, 8)),
    Case("wide", kernel=(1, 3, 3), channels=(40, 33, 70)),
    Case("wide_depth", dilation=(2, 1, 1), clip=(2, 4, 5, 6), channels=(33, 35, 48)),
    Case("wide_dilation", kernel=(1, 3, 3), dilation=(1, 3, 2), channels=(40, 34, 36)),
    # No sub-lattice has more than two positions an axis; then, beyond the map, more than one.
    Case("wide_pairs", kernel=(1, 3, 3), dilation=(1, 5, 4), channels=(40, 34, 36)),
    Case("wide_alone", dilation=(1, 9, 16), channels=(40, 34, 36)),
    Case("wide_deconv", (1, 4, 4), (1, 2, 2), transposed=True, channels=(40, 33, 70)),
    Case("wide_deconv_depth", (3, 4, 4), (1, 2, 2), transposed=True, channels=(33, 35, 48)),
    # Several blocks of tiles, the last one not full.
    Case("wide_blocks", kernel=(1, 3, 3), clip=(1, 3, 45, 38), channels=(160, 96, 64)),
    Case("wide_column", kernel=(1, 3, 3), clip=(1, 1, 33, 1), channels=(64, 64, 64)),
]
CASES += WIDE
BY_NAME = {case.name: case for case in CASES}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@dataclass
class Inputs:
    x: Tensor
    weight: Tensor
    skip: Tensor | None
    residual: Tensor | None
    gamma: Tensor
    beta: Tensor

    def tensors(self) -> dict[str, Tensor | None]:
        return dict(self.__dict__)

    def double(self) -> Inputs:
        return Inputs(
            **{k: None if t is None else t.detach().double() for k, t in self.tensors().items()}
        )

    def require_grad(self) -> Inputs:
        for t in self.tensors().values():
            if t is not None:
                t.requires_grad_()
        return self


def make_inputs(case: Case, dtype: torch.dtype, *, extras: bool, layout: str = "plain") -> Inputs:
    """Random inputs; with ``extras`` also a skip and a residual."""
    n, f, h, w = case.clip
    cx, cs, cout = case.channels
    cin = cx + cs if extras else cx
    pair = (cin, cout) if case.transposed else (cout, cin)
    fan = cin * case.kernel[0] * case.kernel[1] * case.kernel[2]
    if case.transposed:
        out = tuple(size * s for size, s in zip((f, h, w), case.stride, strict=True))
    else:
        out = tuple(-(-size // s) for size, s in zip((f, h, w), case.stride, strict=True))

    def clip(channels: int, frames: int, height: int, width: int) -> Tensor:
        t = torch.randn(n, channels, frames, height, width).to(dtype)
        if layout == "offset":  # dense, but not at the start of its storage
            twice = torch.cat([t, t]).contiguous(memory_format=torch.channels_last_3d)
            return twice[n:]
        if layout == "channels_last":
            return t.contiguous(memory_format=torch.channels_last_3d)
        if layout == "strided":
            return t.repeat_interleave(2, dim=3)[:, :, :, ::2]
        return t

    accumulate = torch.float64 if dtype == torch.float64 else torch.float32
    weight = (torch.randn(*pair, *case.kernel) / fan**0.5).to(dtype)
    return Inputs(
        x=clip(cx, f, h, w),
        weight=weight.contiguous(memory_format=torch.channels_last_3d)
        if layout == "channels_last"
        else weight,
        skip=clip(cs, f, h, w) if extras else None,
        residual=clip(cout, *out) if extras else None,
        gamma=torch.rand(cout, dtype=accumulate) + 0.5,
        beta=torch.randn(cout, dtype=accumulate),
    )


def call_training(function: Callable, inputs: Inputs, case: Case, **options: object):
    """``conv_bn_relu``, ours or the reference's, on one case."""
    return _call(function, (inputs.weight, inputs.gamma, inputs.beta), inputs, case, options)


def call_inference(function: Callable, inputs: Inputs, case: Case, **options: object):
    """``conv_bias_relu``, ours or the reference's, on one case; beta is the bias."""
    return _call(function, (inputs.weight, inputs.beta), inputs, case, options)


def _call(function: Callable, parameters: tuple, inputs: Inputs, case: Case, options: dict):
    extras = {"skip": inputs.skip, "residual": inputs.residual}
    return function(inputs.x, *parameters, **extras, **case.options, **options)


def sure_of_relu(inputs: Inputs, case: Case, mean: Tensor, var: Tensor) -> Tensor:
    """Where the input of ``conv_bn_relu``'s ReLU, from float64 ``inputs``, is 0.1 or more away from 0.

    Elsewhere rounding may have moved a value over the edge, and either slope is right.
    """
    with torch.no_grad():
        pre = reference.conv_bias_relu(
            inputs.x, inputs.weight, None, skip=inputs.skip, relu=False, **case.options
        )
        shape = (1, -1, 1, 1, 1)
        scale = (inputs.gamma / (var + 1e-5).sqrt()).view(shape)
        return ((pre - mean.view(shape)) * scale + inputs.beta.view(shape)).abs() > 0.1
