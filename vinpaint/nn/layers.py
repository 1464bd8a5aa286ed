# SPDX-License-Identifier: Apache-2.0
"""The two building blocks of both networks: a fused layer with batch normalisation, and a linear one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vinpaint import ops


def scaled(channels: int, width: float) -> int:
    """So large a share of a layer's channels, as a multiple of 8 (what the kernels load at a time), at least 8."""
    return channels if width == 1 else max(8, 8 * round(channels * width / 8))


class ConvBNReLU(nn.Module):
    """Convolution (or transposed convolution), batch normalisation and ReLU as one operator.

    Two-dimensional layers are three-dimensional ones with a kernel of depth 1, so both networks
    share this class. In training the batch's own statistics normalise and the running ones follow;
    in evaluation the running statistics are folded into weight and bias, on the fly or, after
    :meth:`fold`, once and for all.

    Args:
        in_channels: channels of the first input plus those of ``skip``.
        out_channels: channels of the output.
        kernel: (frames, height, width); odd, but for a transposed layer.
        stride: (frames, height, width); 1 or 2.
        dilation: (frames, height, width).
        transposed: ``True`` for the up-sampling layers.
        eps: added to the variance.
        momentum: share of the new batch in the running statistics.
    """

    weight: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        dilation: tuple[int, int, int] = (1, 1, 1),
        transposed: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.transposed = stride, dilation, transposed
        self.eps, self.momentum = eps, momentum
        channels = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = nn.Parameter(torch.empty(*channels, *kernel))
        self.gamma = nn.Parameter(torch.ones(out_channels))
        self.beta = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("running_mean", torch.zeros(out_channels))
        self.register_buffer("running_var", torch.ones(out_channels))
        self.bias: Tensor | None = None  # set by fold()
        self._cache = ops.WeightCache()
        # He initialisation over the inputs that reach one output.
        fan_in = in_channels * math.prod(kernel) / (math.prod(stride) if transposed else 1)
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / fan_in))
        self.weight.data = _inputs_last(self.weight, transposed)

    def forward(
        self, x: Tensor, skip: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """(N, C, F, H, W) in, (N, C', F, H', W') out; ``residual`` is added after the ReLU."""
        common: dict[str, Any] = {"skip": skip, "residual": residual, **self.geometry}
        if self.bias is not None:
            return ops.conv_bias_relu(x, self.weight, self.bias, cache=self._cache, **common)
        if not self.training:
            weight, bias = self.folded()
            return ops.conv_bias_relu(x, weight.to(x.dtype), bias, **common)
        out, mean, var = ops.conv_bn_relu(
            x, self.weight, self.gamma, self.beta, eps=self.eps, **common
        )
        count = out.numel() // out.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            unbiased = var * (count / max(count - 1, 1))
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        return out

    @property
    def geometry(self) -> dict[str, Any]:
        """How the kernel lies on its input, as the operators take it."""
        return {
            "stride": self.stride,
            "dilation": self.dilation,
            "transposed": self.transposed,
        }

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias with the running statistics folded in; differentiable."""
        scale = self.gamma * torch.rsqrt(self.running_var + self.eps)
        shape = (1, -1, 1, 1, 1) if self.transposed else (-1, 1, 1, 1, 1)
        return self.weight * scale.view(shape), self.beta - self.running_mean * scale

    def fold(self) -> None:
        """Replace the batch normalisation by a bias, for inference. Cannot be undone."""
        if self.bias is not None:
            return
        weight, bias = self.folded()
        del self.gamma, self.beta, self.running_mean, self.running_var, self.bias
        weight = _inputs_last(weight.detach(), self.transposed)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias.detach(), requires_grad=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConvBNReLU:
        exact = None if self.bias is None else self.bias.detach().clone()
        super()._apply(fn, recurse)
        self._cache.clear()
        # One addition a sum, at no cost: in a short dtype the folded bias stays float32.
        if exact is not None and self.bias is not None and not exact.is_meta:
            dtype = torch.promote_types(self.bias.dtype, torch.float32)
            self.bias = nn.Parameter(exact.detach().to(self.bias.device, dtype), False)
        return self

    def extra_repr(self) -> str:
        return (
            f"weight={tuple(self.weight.shape)}, stride={self.stride}, dilation={self.dilation}, "
            f"transposed={self.transposed}"
        )


def _inputs_last(weight: Tensor, transposed: bool) -> Tensor:
    """The same values, a weight's input channels neighbours in memory: as the GPU's kernels read them."""
    if not transposed:
        return weight.contiguous(memory_format=torch.channels_last_3d)
    return weight.transpose(0, 1).contiguous(memory_format=torch.channels_last_3d).transpose(0, 1)


class Conv(nn.Module):
    """The linear last layer of a network: a convolution with a bias, nothing after it."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self._cache = ops.WeightCache()
        nn.init.normal_(self.weight, std=math.sqrt(1.0 / (in_channels * math.prod(kernel))))
        self.weight.data = _inputs_last(self.weight, transposed=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Conv:
        super()._apply(fn, recurse)
        self._cache.clear()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, F, H, W) in, (N, C', F, H, W) out."""
        return ops.conv_bias_relu(x, self.weight, self.bias, relu=False, cache=self._cache)


Module = TypeVar("Module", bound=nn.Module)


def fold_batch_norm(module: Module) -> Module:
    """Fold every batch normalisation below ``module`` in place; returns it, set to evaluation."""
    for layer in module.modules():
        if isinstance(layer, ConvBNReLU):
            layer.fold()
    return module.eval()
