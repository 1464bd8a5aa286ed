# SPDX-License-Identifier: Apache-2.0
"""The discriminator of the adversarial term: a small 3-D PatchGAN, and its hinge losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """Says of each patch of a clip whether it is filmed (above 0) or filled (below).

    A temporal PatchGAN (Chang et al.: "Free-form Video Inpainting with 3D Gated Convolution and Temporal
    PatchGAN", ICCV 2019), made small: kernels of 3 frames x 5 x 5 pixels, strides inside the frame
    alone, spectral norm. One output sees 11 frames of 93 x 93 pixels. 509 000 parameters. It runs in
    float32, autocast or not: it is a small part of a step, and its power iteration needs the digits.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 16, 32, 64, 64, 1)  # red, green, blue, mask; ... ; the verdict
        strides = (2, 2, 2, 1, 1)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv3d(read, given, (3, 5, 5), (1, stride, stride), (1, 2, 2)))
            for read, given, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )

    def forward(self, clip: Tensor, mask: Tensor) -> Tensor:
        """Verdicts (N, F, h, w), one a patch, h = ceil(H / 8).

        Args:
            clip: (N, 3, F, H, W), float32, filmed or composited, in [0, 1].
            mask: (N, 1, F, H, W), 1 in the hole and 0 elsewhere.
        """
        with torch.autocast(clip.device.type, enabled=False):
            x = torch.cat([2 * clip - 1, mask.to(clip.dtype)], 1)
            for layer in self.layers[:-1]:
                x = F.leaky_relu(layer(x), 0.2)
            return self.layers[-1](x)[:, 0]


def telling_loss(filmed: Tensor, filled: Tensor) -> Tensor:
    """What the discriminator minimises, by clip (N,): ``mean(relu(1 - filmed) + relu(1 + filled))``."""
    return (F.relu(1 - filmed) + F.relu(1 + filled)).flatten(1).mean(1)


def fooling_loss(filled: Tensor) -> Tensor:
    """What the networks minimise, by clip (N,): ``-mean(filled)``."""
    return -filled.flatten(1).mean(1)
