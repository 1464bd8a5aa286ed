# SPDX-License-Identifier: Apache-2.0
"""3DCN: the 3-D encoder-decoder that completes a clip at half resolution (Wang et al., AAAI 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from vinpaint.nn.layers import Conv, ConvBNReLU


class CompletionNet3d(nn.Module):
    """3DCN. Twelve layers; strides and dilations act inside a frame, the frame count never changes."""

    halo = 13
    """Frames to either side that one output frame depends on: 2 of layer 1, 1 of each layer after it."""

    def __init__(self) -> None:
        super().__init__()
        k3, up, by2 = (3, 3, 3), (3, 4, 4), (1, 2, 2)
        self.conv1 = ConvBNReLU(4, 16, (5, 5, 5))
        self.conv2 = ConvBNReLU(16, 32, k3, stride=by2)
        self.conv3 = ConvBNReLU(32, 64, k3)
        self.conv4 = ConvBNReLU(64, 128, k3, stride=by2)
        self.conv5 = ConvBNReLU(128, 256, k3, dilation=(1, 2, 2))
        self.conv6 = ConvBNReLU(256, 256, k3, dilation=(1, 4, 4))
        self.conv7 = ConvBNReLU(256, 256, k3, dilation=(1, 8, 8))
        self.conv8 = ConvBNReLU(256, 128, k3)
        self.deconv9 = ConvBNReLU(128 + 128, 64, up, stride=by2, transposed=True)
        self.conv10 = ConvBNReLU(64 + 64, 32, k3)
        self.deconv11 = ConvBNReLU(32 + 32, 16, up, stride=by2, transposed=True)
        self.conv12 = Conv(16, 3, k3)

    def forward(self, x: Tensor) -> Tensor:
        """Complete a clip.

        Args:
            x: (N, 4, F, h, w), the mean-filled low-resolution clip and its mask; h and w multiples of 4.

        Returns:
            (N, 3, F, h, w), linear, neither clamped nor composited.
        """
        x1 = self.conv1(x)  # (N, 16, F, h, w)
        x2 = self.conv2(x1)  # (N, 32, F, h/2, w/2)
        x3 = self.conv3(x2)  # (N, 64, F, h/2, w/2)
        x4 = self.conv4(x3)  # (N, 128, F, h/4, w/4)
        y = self.conv5(x4)  # (N, 256, F, h/4, w/4)
        y = self.conv6(y)
        y = self.conv7(y)
        y = self.conv8(y)  # (N, 128, F, h/4, w/4)
        y = self.deconv9(y, skip=x4)  # (N, 64, F, h/2, w/2)
        y = self.conv10(y, skip=x3)  # (N, 32, F, h/2, w/2)
        y = self.deconv11(y, skip=x2)  # (N, 16, F, h, w)
        return self.conv12(y)  # (N, 3, F, h, w)
