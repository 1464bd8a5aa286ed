# SPDX-License-Identifier: Apache-2.0
"""The running average of the weights, which is better than the weights of any one step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of ``model``, statistics included, to be told of every step.

    The decay rises with the steps told of so far, (1 + n) / (10 + n), up to ``decay``: an average that
    begins would else stay near the first weights for long.
    """

    def follow(averages: Sequence[Tensor], current: Sequence[Tensor], told: Tensor | int) -> None:
        share = 1.0 - min(decay, (1 + int(told)) / (10 + int(told)))
        torch._foreach_lerp_(list(averages), list(current), share)

    average = AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
    return average.requires_grad_(False).eval()
