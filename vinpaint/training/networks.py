# SPDX-License-Identifier: Apache-2.0
"""What one stage of training computes of a clip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vinpaint.nn import VideoInpainter
from vinpaint.nn.inpainter import pad_to_grid, reduce_clip
from vinpaint.training.config import StageConfig
from vinpaint.training.losses import Output


class Batch(NamedTuple):
    """Clips on the device they are computed on, floating.

    Attributes:
        frames: (N, 3, F, H, W) in [0, 1], the truth.
        unknown: (N, 1, F, H, W), 1 in the hole, 0 elsewhere, between where something was carried: the share that is not
            believed.
        given: (N, 3, F, H, W), what the networks may look at: the truth, but for what was carried.
    """

    frames: Tensor
    unknown: Tensor
    given: Tensor


class Networks(nn.Module):
    """What one stage computes of a clip, as one module."""

    def __init__(self, model: VideoInpainter, stage: StageConfig) -> None:
        super().__init__()
        self.model, self.networks = model, stage.networks

    def forward(self, clips: Batch, chosen: Tensor) -> Output:
        """What the networks give for clips, CombCN for their ``chosen`` frames."""
        model = self.model
        frames, unknown, given = (pad_to_grid(part, model.grid) for part in clips)
        if model.config.prefill != "carried":
            unknown = model.completes(unknown).to(unknown.dtype)
        small_given, small_unknown = reduce_clip(given, unknown, model.config.reduction)
        small, _ = reduce_clip(frames, unknown, model.config.reduction)
        small_mask = model.completes(small_unknown).to(unknown.dtype)
        coarse = guidance = completed = None
        if model.completion is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.networks != "comb"):
                coarse, guidance = model.complete(small_given, small_unknown)
        if len(chosen) < frames.shape[2]:
            frames, unknown, given = (part[:, :, chosen] for part in (frames, unknown, given))
            guidance = None if guidance is None else guidance[:, :, chosen]
        if self.networks != "completion":
            completed = model.restore(given, unknown, guidance)
        mask = model.completes(unknown).to(unknown.dtype)
        return Output(coarse, small, small_mask, completed, frames, mask)
