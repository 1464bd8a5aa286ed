# SPDX-License-Identifier: Apache-2.0
"""CombCN: the 2-D encoder-decoder that restores every frame at full size, guided by 3DCN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vinpaint.nn.layers import Conv, ConvBNReLU, scaled

CACHE_PIXELS = 4 * 128 * 128
"""Pixels computed at a time for inference on a CPU: then the feature maps stay in its cache."""


def _layer(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> ConvBNReLU:
    return ConvBNReLU(
        in_channels,
        out_channels,
        (1, kernel, kernel),
        stride=(1, stride, stride),
        dilation=(1, dilation, dilation),
    )


def _up(in_channels: int, out_channels: int) -> ConvBNReLU:
    return ConvBNReLU(in_channels, out_channels, (1, 4, 4), stride=(1, 2, 2), transposed=True)


class CombCN(nn.Module):
    """CombCN: seventeen layers on single frames, and two guidance layers that read 3DCN's output.

    A guidance map is added at half resolution after layer 2 and after layer 14. All kernels have
    depth 1: frames never mix, so any number of them may be computed at a time.

    Args:
        width: share of the paper's channels in the hidden layers.
        guidance: ``False`` drops the two guidance layers: the paper's 2DCN.
    """

    def __init__(self, width: float = 1.0, *, guidance: bool = True) -> None:
        super().__init__()
        c32, c64, c128, c256 = (scaled(c, width) for c in (32, 64, 128, 256))
        self.conv1 = _layer(4, c64, kernel=5)
        self.conv2 = _layer(c64, c128, stride=2)
        self.conv3 = _layer(c128, c128)
        self.conv4 = _layer(c128, c256, stride=2)
        self.conv5 = _layer(c256, c256)
        self.conv6 = _layer(c256, c256)
        self.conv7 = _layer(c256, c256, dilation=2)
        self.conv8 = _layer(c256, c256, dilation=4)
        self.conv9 = _layer(c256, c256, dilation=8)
        self.conv10 = _layer(c256 + c256, c256, dilation=16)
        self.conv11 = _layer(c256 + c256, c256)
        self.conv12 = _layer(c256 + c256, c256)
        self.deconv13 = _up(c256 + c256, c128)
        self.conv14 = _layer(c128 + c128, c128)
        self.deconv15 = _up(c128 + c128, c64)
        self.conv16 = _layer(c64 + c64, c32)
        self.conv17 = Conv(c32, 3, (1, 3, 3))
        self.guide2 = _layer(3, c128) if guidance else None
        self.guide14 = _layer(3, c128) if guidance else None

    def forward(self, x: Tensor, guidance: Tensor | None = None) -> Tensor:
        """Restore frames.

        Args:
            x: (N, 4, F, H, W), the frames, their hole filled beforehand, and their mask; H and W multiples of 4.
            guidance: (N, 3, F, H/2, W/2), 3DCN's completed clip; ``None`` for 2DCN only.

        Returns:
            (N, 3, F, H, W), linear, neither clamped nor composited.

        Raises:
            ValueError: guidance given to 2DCN, or missing for CombCN.
        """
        if (guidance is None) == (self.guide2 is not None):
            raise ValueError(
                f"CombCN: guidance must be {'given' if self.guide2 is not None else 'None'} "
                f"for {'CombCN' if self.guide2 is not None else '2DCN'}"
            )
        frames = x.shape[2]
        step = max(1, CACHE_PIXELS // (x.shape[3] * x.shape[4]))
        learning = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        if learning or x.device.type != "cpu" or step >= frames:
            return self.restore(x, guidance)
        parts = (slice(start, start + step) for start in range(0, frames, step))
        restored = [
            self.restore(x[:, :, part], None if guidance is None else guidance[:, :, part])
            for part in parts
        ]
        return torch.cat(restored, dim=2)

    def restore(self, x: Tensor, guidance: Tensor | None) -> Tensor:
        guide2 = guide14 = None
        if guidance is not None and self.guide2 is not None and self.guide14 is not None:
            guide2, guide14 = self.guide2(guidance), self.guide14(guidance)  # (N, 128, F, H/2, W/2)
        x1 = self.conv1(x)  # (N, 64, F, H, W)
        x2 = self.conv2(x1, residual=guide2)  # (N, 128, F, H/2, W/2)
        x3 = self.conv3(x2)  # (N, 128, F, H/2, W/2)
        x4 = self.conv4(x3)  # (N, 256, F, H/4, W/4)
        x5 = self.conv5(x4)
        x6 = self.conv6(x5)
        x7 = self.conv7(x6)
        y = self.conv8(x7)
        y = self.conv9(y)  # (N, 256, F, H/4, W/4)
        y = self.conv10(y, skip=x7)
        y = self.conv11(y, skip=x6)
        y = self.conv12(y, skip=x5)  # (N, 256, F, H/4, W/4)
        y = self.deconv13(y, skip=x4)  # (N, 128, F, H/2, W/2)
        y = self.conv14(y, skip=x3, residual=guide14)  # (N, 128, F, H/2, W/2)
        y = self.deconv15(y, skip=x2)  # (N, 64, F, H, W)
        y = self.conv16(y, skip=x1)  # (N, 32, F, H, W)
        return self.conv17(y)  # (N, 3, F, H, W)
