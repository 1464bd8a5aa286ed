# SPDX-License-Identifier: Apache-2.0
"""What one stage of training computes of a clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vinpaint.nn import VideoInpainter
from vinpaint.nn.inpainter import pad_to_grid, reduce_clip
from vinpaint.training.config import StageConfig
from vinpaint.training.losses import Output


class Networks(nn.Module):
    """What one stage computes of a clip, as one module."""

    def __init__(self, model: VideoInpainter, stage: StageConfig) -> None:
        super().__init__()
        self.model, self.networks = model, stage.networks

    def forward(self, frames: Tensor, mask: Tensor, chosen: Tensor) -> Output:
        """Clips (N, 3, F, H, W), their holes, and the frames of each that CombCN gets."""
        grid = self.model.grid
        frames, mask = pad_to_grid(frames, grid), pad_to_grid(mask, grid)
        small, small_mask = reduce_clip(frames, mask, self.model.config.reduction)
        coarse = guidance = completed = None
        if self.model.completion is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.networks != "comb"):
                coarse, guidance = self.model.complete(small, small_mask)
        if len(chosen) < frames.shape[2]:
            frames, mask = frames[:, :, chosen], mask[:, :, chosen]
            guidance = None if guidance is None else guidance[:, :, chosen]
        if self.networks != "completion":
            completed = self.model.restore(frames, mask, guidance)
        return Output(coarse, small, small_mask, completed, frames, mask)
