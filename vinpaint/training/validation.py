# SPDX-License-Identifier: Apache-2.0
"""Validation: the paper's two losses on held-out clips, always the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vinpaint.nn import VideoInpainter
from vinpaint.training.config import StageConfig
from vinpaint.training.data import ClipDataset
from vinpaint.training.distributed import Processes
from vinpaint.training.losses import LossConfig, Objective, Output
from vinpaint.training.monitor import picture_rows
from vinpaint.training.networks import Networks

Compute = Callable[[Networks, Objective, list[Tensor]], tuple[Output, dict[str, Tensor]]]
"""What networks give for a batch of clips, and its losses, as the run computes them: on its device, in its precision."""


@torch.no_grad()
def validate(
    model: VideoInpainter,
    stage: StageConfig,
    clips: ClipDataset,
    processes: Processes,
    compute: Compute,
    on_first: Callable[[Output], None] | None = None,
) -> dict[str, float]:
    """Means of the losses of a stage's networks over ``clips``, which the processes share, by their names.

    ``on_first`` is given what the networks gave for the first clip, in the process that computed it.
    """
    learning = [module for module in model.modules() if module.training]
    networks = Networks(model.eval(), stage)
    objective = Objective(LossConfig(), processes.device)
    names = {"l1_3dcn": model.completion is not None}
    names["l1_combcn"] = stage.networks != "completion"
    zero = torch.zeros((), device=processes.device)
    sums = {name: zero.clone() for name, there in names.items() if there}
    for index in range(processes.rank, len(clips), processes.count):
        batch = [clip.unsqueeze(0) for clip in clips[index]]
        output, terms = compute(networks, objective, batch)
        for name, total in sums.items():
            total.add_(terms[name])
        if index == 0 and on_first is not None:
            on_first(output)
    for module in learning:
        module.training = True
    processes.average(list(sums.values()))
    share = processes.count / len(clips)
    return {name: share * value.item() for name, value in sums.items()}


def picture(output: Output) -> Tensor:
    """The first clip of what the networks gave, CombCN's or else 3DCN's: hole, fill and truth below each other."""
    if output.completed is not None:
        return picture_rows(output.frames[0], output.mask[0], output.completed[0])
    assert output.coarse is not None
    return picture_rows(output.small[0], output.small_mask[0], output.coarse[0])
