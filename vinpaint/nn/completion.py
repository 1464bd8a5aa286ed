# SPDX-License-Identifier: Apache-2.0
"""3DCN: the 3-D encoder-decoder that completes a clip at half resolution (Wang et al., AAAI 2019)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vinpaint.nn.layers import Conv, ConvBNReLU, scaled


class CompletionNet3d(nn.Module):
    """3DCN. Twelve layers; strides and dilations act inside a frame, the frame count never changes.

    Args:
        width: share of the paper's channels in the hidden layers.
        temporal_stride: layers 2, 4, 9 and 11 stride over frames as well: the paper's ablation.
    """

    halo: int
    """Frames to either side that one output frame depends on."""

    def __init__(self, width: float = 1.0, *, temporal_stride: bool = False) -> None:
        super().__init__()
        # 2 of layer 1 and 1 of each layer after it; with strides, layers 3 and 10 reach 2, 5 to 8 reach 4.
        self.halo = 32 if temporal_stride else 13
        self.temporal_stride = temporal_stride
        c16, c32, c64, c128, c256 = (scaled(c, width) for c in (16, 32, 64, 128, 256))
        k3 = (3, 3, 3)
        up, by2 = ((4, 4, 4), (2, 2, 2)) if temporal_stride else ((3, 4, 4), (1, 2, 2))
        self.conv1 = ConvBNReLU(4, c16, (5, 5, 5))
        self.conv2 = ConvBNReLU(c16, c32, k3, stride=by2)
        self.conv3 = ConvBNReLU(c32, c64, k3)
        self.conv4 = ConvBNReLU(c64, c128, k3, stride=by2)
        self.conv5 = ConvBNReLU(c128, c256, k3, dilation=(1, 2, 2))
        self.conv6 = ConvBNReLU(c256, c256, k3, dilation=(1, 4, 4))
        self.conv7 = ConvBNReLU(c256, c256, k3, dilation=(1, 8, 8))
        self.conv8 = ConvBNReLU(c256, c128, k3)
        self.deconv9 = ConvBNReLU(c128 + c128, c64, up, stride=by2, transposed=True)
        self.conv10 = ConvBNReLU(c64 + c64, c32, k3)
        self.deconv11 = ConvBNReLU(c32 + c32, c16, up, stride=by2, transposed=True)
        self.conv12 = Conv(c16, 3, k3)

    def forward(self, x: Tensor, live: Tensor | None = None) -> Tensor:
        """Complete a clip.

        Args:
            x: (N, 4, F, h, w), the low-resolution clip, its hole filled beforehand, and its mask; h and w multiples of 4.
            live: (F,), 1 for the frames of the clip, 0 for others before or after it that only fill ``x`` up: then the
                clip's frames come out as without these. ``None``: all are the clip's.

        Returns:
            (N, 3, F, h, w), linear, neither clamped nor composited.
        """
        if self.temporal_stride and x.shape[2] % 4:  # two halvings: repeat the last frame
            return self(F.pad(x, (0, 0, 0, 0, 0, -x.shape[2] % 4), mode="replicate"))[
                :, :, : x.shape[2]
            ]

        def alive(y: Tensor) -> Tensor:
            return y if live is None else y * live.to(y.dtype).view(1, 1, -1, 1, 1)

        x1 = alive(self.conv1(alive(x)))  # (N, 16, F, h, w)
        x2 = alive(self.conv2(x1))  # (N, 32, F, h/2, w/2)
        x3 = alive(self.conv3(x2))  # (N, 64, F, h/2, w/2)
        x4 = alive(self.conv4(x3))  # (N, 128, F, h/4, w/4)
        y = alive(self.conv5(x4))  # (N, 256, F, h/4, w/4)
        y = alive(self.conv6(y))
        y = alive(self.conv7(y))
        y = alive(self.conv8(y))  # (N, 128, F, h/4, w/4)
        y = alive(self.deconv9(y, skip=x4))  # (N, 64, F, h/2, w/2)
        y = alive(self.conv10(y, skip=x3))  # (N, 32, F, h/2, w/2)
        y = alive(self.deconv11(y, skip=x2))  # (N, 16, F, h, w)
        return self.conv12(y)  # (N, 3, F, h, w)
