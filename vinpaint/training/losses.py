# SPDX-License-Identifier: Apache-2.0
"""What training minimises: the paper's two losses inside the hole, and what may be added to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vinpaint import ops


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; the paper's loss by default.

    Attributes:
        comb_weight: of CombCN's l1 beside 3DCN's; the paper's is 1.
        temporal: of the differences between neighbouring frames.
        adversarial: of what a discriminator says of the clip.
        adversarial_learning_rate: the discriminator's.
    """

    comb_weight: float = 1.0
    temporal: float = 0.0
    adversarial: float = 0.0
    adversarial_learning_rate: float = 1e-4

    @property
    def needs_neighbours(self) -> bool:
        """Whether a term compares neighbouring frames."""
        return self.temporal > 0 or self.adversarial > 0


def choose_frames(config: LossConfig, count: int, wanted: int | None, step: int) -> Tensor:
    """The frames of a clip that CombCN trains on in one step.

    Evenly spread ones differ most, so they teach most; but where a term compares neighbours they are a
    run of neighbours, which begins one frame later each step.

    Args:
        config: the terms' weights.
        count: frames of the clip.
        wanted: how many of them; ``None``: all.
        step: number of the step.

    Returns:
        Their indices (wanted,), int64, ascending.
    """
    if wanted is None or wanted >= count:
        return torch.arange(count)
    if config.needs_neighbours:
        return torch.arange(wanted) + step % (count - wanted + 1)
    return torch.linspace(0, count - 1, wanted).round().long()


class Output(NamedTuple):
    """What the networks gave in one step, and what they should have given.

    Attributes:
        coarse: 3DCN's frames (N, 3, F, h, w); ``None`` if there is no 3DCN.
        small: the true frames of ``coarse``, as ``reduce_clip`` gives them.
        small_mask: (N, 1, F, h, w), 1 in the hole and 0 elsewhere.
        completed: CombCN's frames (N, 3, G, H, W); ``None`` in a stage without CombCN.
        frames: the true frames of ``completed``: of the same G frames.
        mask: (N, 1, G, H, W), 1 in the hole and 0 elsewhere.
    """

    coarse: Tensor | None
    small: Tensor
    small_mask: Tensor
    completed: Tensor | None
    frames: Tensor
    mask: Tensor


class Objective(nn.Module):
    """The loss of one step.

    Example::

        objective = Objective(LossConfig(), device)
        total, parts = objective(output)
        total.backward()

    Args:
        config: the terms' weights.
        device: where the outputs will be.
    """

    def __init__(self, config: LossConfig, device: torch.device) -> None:  # noqa: ARG002
        super().__init__()
        self.config = config

    def forward(self, output: Output) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms, float32, and each term by name, unweighted and detached.

        ``l1_3dcn`` and ``l1_combcn`` are :func:`vinpaint.ops.masked_l1` on the 0..255 scale: 3DCN's
        averaged over clips, CombCN's over frames. What is ``None`` in the output has no term.
        """
        terms = {}
        if output.coarse is not None:
            terms["l1_3dcn"] = 255 * ops.masked_l1(output.coarse, output.small, output.small_mask)
        if output.completed is not None:
            l1 = ops.masked_l1(output.completed, output.frames, output.mask, per_frame=True)
            terms["l1_combcn"] = 255 * l1
        weights = {"l1_3dcn": 1.0, "l1_combcn": self.config.comb_weight}
        total = sum(
            (weights[name] * term for name, term in terms.items()),
            torch.zeros((), device=output.frames.device),
        )
        return total, {name: term.detach() for name, term in terms.items()}

    def trainable(self) -> list[nn.Parameter]:
        """The discriminator's parameters, for an optimiser of their own; empty without one."""
        return []

    def discriminator_loss(self, output: Output) -> Tensor | None:  # noqa: ARG002
        """What the discriminator minimises; ``None`` where there is nothing to minimise."""
        return None
