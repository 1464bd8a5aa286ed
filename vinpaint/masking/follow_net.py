# SPDX-License-Identifier: Apache-2.0
"""The small network that weighs what speaks for the followed object: motion, colour, likeness."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

NETWORK = Path(str(resources.files("vinpaint") / "assets/follow/model.safetensors"))
"""The weights that come with the package."""

CUES = 6
"""Planes beside the picture, each -1 to 1: the share moved along from the frame before, how far that can
be trusted, the odds by the painted and by the recent colours, whether a pixel moves along with the
object, and 1 in the picture, 0 in its padding."""

READINGS = 3
"""What a look into the memory tells of every place: see :meth:`FollowNet.read`."""

STRIDE = 8
"""Pixels a side of the places that are compared."""

MULTIPLE = 16
"""Height and width of what the network sees must be multiples of it."""

KEYS = 32
"""Channels that places are compared by."""

FEATURES = 64
"""Channels of what the network knows of a place by its look alone."""
SHARPNESS = 12.0
"""How much more a more alike place counts; likeness is between -1 and 1."""


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU(inplace=True))


class FollowNet(nn.Module):
    """A U-Net over picture, cues and memory readings; 0.35 million parameters.

    Args:
        widths: channels at a half, a quarter, an eighth and a sixteenth of the size.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (20, 32, 48, 64)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.embed = nn.Sequential(
            nn.PixelUnshuffle(4), _conv(48, 40), _conv(40, FEATURES, 2), _conv(FEATURES, FEATURES)
        )
        self.key = nn.Conv2d(FEATURES, KEYS, 3, padding=1)
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), _conv(4 * (3 + CUES), a))
        self.down1 = nn.Sequential(_conv(a, b, 2), _conv(b, b))
        self.down2 = _conv(b, c, 2)
        self.mix2 = nn.Sequential(_conv(c + FEATURES + READINGS, c), _conv(c, c))
        self.down3 = nn.Sequential(_conv(c, d, 2), _conv(d, d))
        self.up2 = _conv(c + d, c)
        self.up1 = _conv(b + c, b)
        self.up0 = _conv(a + b, a)
        self.out = nn.Conv2d(a, 4, 3, padding=1)

    def encode(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, FEATURES, H/8, W/8) and keys (B, KEYS, H/8, W/8) of pictures (B, 3, H, W)."""
        features = self.embed(picture)
        return features, F.normalize(self.key(features), dim=1)

    @staticmethod
    def read(key: Tensor, keys: Tensor, shares: Tensor) -> Tensor:
        """Compare every place with remembered ones.

        key: (B, KEYS, h, w). keys: (B, KEYS, N); shares: (B, N), how much of each is object.
        Returns (B, READINGS, h, w): the object's share among places alike, the likeness of the most
        alike place of the object, and of the background.
        """
        batch, _, height, width = key.shape
        likeness = torch.einsum("bcq,bcn->bqn", key.flatten(2), keys)
        share = (F.softmax(SHARPNESS * likeness, 2) * shares[:, None]).sum(2)
        # Places of the other kind are put out of the running; those of both stay in, a little.
        on = (likeness - 2 * (1 - shares[:, None])).amax(2).clamp(min=-1)
        off = (likeness - 2 * shares[:, None]).amax(2).clamp(min=-1)
        return torch.stack((2 * share - 1, on, off), 1).view(batch, READINGS, height, width)

    def forward(self, picture: Tensor, cues: Tensor, features: Tensor, reading: Tensor) -> Tensor:
        """Log odds (B, H, W) that a pixel is the object.

        picture: (B, 3, H, W), see :func:`network_input`. cues: (B, CUES, H, W). features, reading:
        of :meth:`encode` and :meth:`read`. H and W are multiples of MULTIPLE.
        """
        x0 = self.enter(torch.cat((picture, cues), 1))
        x1 = self.down1(x0)
        x2 = self.mix2(torch.cat((self.down2(x1), features, reading), 1))
        x3 = self.down3(x2)
        y = self.up2(torch.cat((x2, _twice(x3)), 1))
        y = self.up1(torch.cat((x1, _twice(y)), 1))
        y = self.up0(torch.cat((x0, _twice(y)), 1))
        y = F.pixel_shuffle(self.out(y), 2)[:, 0]
        # Untrained, it already says what motion says.
        return y + 2 * cues[:, 0]


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def network_input(*pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures, uint8 (H, W, 3) RGB, as the network takes them: (B, 3, H, W), around 0."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return (batch.float() / 255 - 0.45) / 0.25


@cache
def load_network(path: Path = NETWORK) -> FollowNet:
    """The network that ships with the package, or another of its kind, for inference."""
    network = FollowNet()
    network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return network.requires_grad_(False).eval()
