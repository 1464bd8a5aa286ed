# SPDX-License-Identifier: Apache-2.0
"""What a hole in a clip is like: how much moves, and how much of what it hides another frame shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vinpaint import ops
from vinpaint.evaluation.data import Hole
from vinpaint.evaluation.flow import TruthFlow

MOTIONS = {"static": 0.5, "camera": 5.0, "fast": float("inf")}
"""By the median length of the truth's flow, over pixels and then over frames, up to which a clip is called so, in pixels."""

SEEN = {"seldom seen": 1 / 3, "partly seen": 2 / 3, "mostly seen": float("inf")}
"""By the share of a hole's pixels that are seen, up to which it is called so."""


@dataclass(frozen=True)
class Condition:
    """What a clip and its hole are like.

    Attributes:
        motion: one of :data:`MOTIONS`.
        seen: one of :data:`SEEN`.
        pixels: the flow's length that ``motion`` is from.
        share: of the hole's pixels that come out of the hole if one follows the truth's flow.
    """

    motion: str
    seen: str
    pixels: float
    share: float


def condition_of(flows: TruthFlow | None, hole: Hole) -> Condition:
    """Look at a hole (F, H, W) under the truth's flow; ``None``: a clip of one frame."""
    pixels = share = 0.0
    if flows is not None:
        lengths = [np.median(np.hypot(flow[..., 0], flow[..., 1])) for flow in flows.flows]
        pixels = float(np.median(lengths))
        share = _share_seen(flows, hole)
    return Condition(_name(MOTIONS, pixels), _name(SEEN, share), pixels, share)


def _name(bounds: dict[str, float], value: float) -> str:
    return next(name for name, most in bounds.items() if value <= most)


def _share_seen(flows: TruthFlow, hole: Hole) -> float:
    frames = len(hole)
    mask = torch.from_numpy(np.ascontiguousarray(hole))
    seen = np.zeros_like(hole)
    for step, ways in ((1, [*flows.flows, None]), (-1, [None, *flows.backs])):
        planes = [
            np.zeros((*hole.shape[1:], 2), np.float32) if way is None else way for way in ways
        ]
        flow = torch.from_numpy(np.stack(planes))
        error = torch.zeros(flow.shape[:3])
        for frame in range(frames):
            source, _, _ = ops.follow_flow(flow, error, mask, frame=frame, step=step, reach=frames)
            seen[frame] |= source.numpy() >= 0
    return float(seen[hole].mean()) if hole.any() else 0.0
