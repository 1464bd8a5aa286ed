# SPDX-License-Identifier: Apache-2.0
"""The networks: 3DCN, CombCN and the two of them joined, built from :mod:`vinpaint.ops` only."""

from vinpaint.nn.comb import CombCN
from vinpaint.nn.completion import CompletionNet3d
from vinpaint.nn.inpainter import InpainterConfig, VideoInpainter
from vinpaint.nn.layers import fold_batch_norm

__all__ = ["CombCN", "CompletionNet3d", "InpainterConfig", "VideoInpainter", "fold_batch_norm"]
