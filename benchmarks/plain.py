# SPDX-License-Identifier: Apache-2.0
"""The peer: both networks as one would write them in torch, without any of our operators.

``conv2d`` for CombCN, or ``conv3d`` with kernels of depth 1; separate batch normalisation, ReLU and
concatenation. Takes the weights of our model, so that results can be compared before they are timed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinpaint.nn import VideoInpainter
from vinpaint.nn.layers import Conv, ConvBNReLU


class PlainLayer(nn.Module):
    """One layer of ours in plain torch; ``dims`` is 2 for CombCN, 3 for 3DCN."""

    def __init__(self, ours: ConvBNReLU | Conv, dims: int) -> None:
        super().__init__()
        transposed = isinstance(ours, ConvBNReLU) and ours.transposed
        weight = ours.weight.detach().squeeze(2) if dims == 2 else ours.weight.detach()
        out_channels, in_channels = weight.shape[:2]
        kernel = tuple(weight.shape[2:])
        stride = getattr(ours, "stride", (1, 1, 1))[3 - dims :]
        dilation = getattr(ours, "dilation", (1, 1, 1))[3 - dims :]
        self.linear = isinstance(ours, Conv)
        if transposed:
            padding = tuple((k - s) // 2 for k, s in zip(kernel, stride, strict=True))
            up = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
            in_channels, out_channels = out_channels, in_channels
            self.conv: nn.Module = up(
                in_channels, out_channels, kernel, stride, padding, bias=False
            )
        else:
            padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
            conv = nn.Conv2d if dims == 2 else nn.Conv3d
            self.conv = conv(
                in_channels, out_channels, kernel, stride, padding, dilation, bias=self.linear
            )
        with torch.no_grad():
            self.conv.weight.copy_(weight)
            if isinstance(ours, Conv):
                self.conv.bias.copy_(ours.bias)
                return
            self.norm = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(out_channels)
            for name, value in zip(
                ("weight", "bias", "running_mean", "running_var"),
                (ours.gamma, ours.beta, ours.running_mean, ours.running_var),
                strict=True,
            ):
                getattr(self.norm, name).copy_(value)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        y = self.conv(x if skip is None else torch.cat([x, skip], 1))
        return y if self.linear else F.relu(self.norm(y))


class PlainInpainter(nn.Module):
    """The joint model after the input is prepared: from 3DCN's and CombCN's input to the completed frames."""

    def __init__(self, ours: VideoInpainter, comb_dims: int = 2) -> None:
        super().__init__()
        self.comb_dims = comb_dims
        assert ours.completion is not None
        self.completion = nn.ModuleDict(
            {n: PlainLayer(m, 3) for n, m in ours.completion.named_children()}
        )
        self.comb = nn.ModuleDict(
            {n: PlainLayer(m, comb_dims) for n, m in ours.comb.named_children()}
        )

    def forward(self, small: Tensor, x: Tensor) -> Tensor:
        """(1, 4, F, h, w) and (F, 4, H, W) to (F, 3, H, W); or, in conv3d, (1, 4, F, H, W) to its like."""
        return self.restore(x, self.complete(small))

    def complete(self, small: Tensor) -> Tensor:
        """3DCN: (1, 4, F, h, w) to (1, 3, F, h, w)."""
        net = self.completion
        x2 = net["conv2"](net["conv1"](small))
        x3 = net["conv3"](x2)
        x4 = net["conv4"](x3)
        y = net["conv8"](net["conv7"](net["conv6"](net["conv5"](x4))))
        y = net["deconv11"](net["conv10"](net["deconv9"](y, x4), x3), x2)
        return net["conv12"](y)

    def restore(self, x: Tensor, guidance: Tensor) -> Tensor:
        """CombCN, guided by 3DCN's output (1, 3, F, h, w): (F, 4, H, W) to (F, 3, H, W), or in conv3d."""
        if self.comb_dims == 2:
            guidance = guidance[0].transpose(0, 1)
        if self.comb_dims == 2 and x.is_contiguous(memory_format=torch.channels_last):
            guidance = guidance.contiguous(memory_format=torch.channels_last)
        net = self.comb
        x1 = net["conv1"](x)
        x2 = net["conv2"](x1) + net["guide2"](guidance)
        x3 = net["conv3"](x2)
        x4 = net["conv4"](x3)
        x5 = net["conv5"](x4)
        x6 = net["conv6"](x5)
        x7 = net["conv7"](x6)
        y = net["conv10"](net["conv9"](net["conv8"](x7)), x7)
        y = net["deconv13"](net["conv12"](net["conv11"](y, x6), x5), x4)
        y = net["conv14"](y, x3) + net["guide14"](guidance)
        return net["conv17"](net["conv16"](net["deconv15"](y, x2), x1))
