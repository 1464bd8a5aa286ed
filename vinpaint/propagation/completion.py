# SPDX-License-Identifier: Apache-2.0
"""Flow inside the hole: a small network that goes on from the flow around it, in space and in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from vinpaint.nn.prefill import harmonic_fill
from vinpaint.propagation.flow import Flow
from vinpaint.propagation.grid import fetched
from vinpaint.propagation.motion import fit_motion, motion_flow

OFFSETS = (-6, -3, -1, 0, 1, 3, 6)
"""The pairs of frames, relative to the one in question, whose flow the network sees."""

CONTEXT_PAIRS = max(OFFSETS)
"""Pairs to either side that the completed flow depends on."""

LEAST_SCALE = 0.25
"""Pixels; added to the mean length of the known flow, less the camera's, to give the unit the network works in."""

SWEEPS = 6
"""Of the harmonic fill that the network adds to."""

LIMIT = 20.0
"""Units beyond which flow is cut off at the network's input."""

CONFIRMED = (1.0, 0.05)
"""Forward and backward flow agree where they miss each other by less than 1 pixel and 5 % of their length."""

NETWORK = Path(
    str(resources.files("vinpaint") / "assets/weights/flow-completion/model.safetensors")
)
"""The weights that come with the package."""


class FlowCompletionNet(nn.Module):
    """A U-Net over the grid: what to add to a harmonic fill of the flow, and how far off that will be.

    Args:
        channels: at the three sizes.
    """

    def __init__(self, channels: tuple[int, int, int] = (64, 96, 128)) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.enter = nn.Conv2d(4 * (3 * len(OFFSETS) + 4), fine, 3, padding=1)
        self.fine_in = _Block(fine)
        self.to_middle = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.middle_in = _Block(middle)
        self.to_coarse = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(_Block(coarse), _Block(coarse, dilation=2))
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.middle_out = _Block(middle)
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.fine_out = _Block(fine)
        self.leave = nn.Conv2d(fine, 4 * 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From (N, 25, h, w), h and w even, to the addition (N, 2, h, w) and the log of the error (N, 1, h, w)."""
        fine = self.fine_in(F.relu(self.enter(F.pixel_unshuffle(x, 2))))  # (N, 64, h/2, w/2)
        middle = self.middle_in(F.relu(self.to_middle(fine)))  # (N, 96, h/4, w/4)
        coarse = self.coarse(F.relu(self.to_coarse(middle)))  # (N, 128, h/8, w/8)
        middle = self.middle_out(middle + _enlarged_to(middle, self.from_coarse(coarse)))
        fine = self.fine_out(fine + _enlarged_to(fine, self.from_middle(middle)))
        y = F.pixel_shuffle(self.leave(fine), 2)  # (N, 3, h, w)
        return y[:, :2], y[:, 2:].clamp(-5, 5)


class _Block(nn.Module):
    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def _enlarged_to(like: Tensor, x: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def network_input(
    residual: Tensor, unknown: Tensor, gray: Tensor, hole: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the network sees.

    Args:
        residual: (N, 7, 2, h, w): flow less the camera's, in pixels, of the pairs at :data:`OFFSETS`.
        unknown: (N, 7, 1, h, w), 1 where it is not known and 0 elsewhere; all 1 for a pair that is not there.
        gray: (N, 1, h, w), the pair's first frame in [0, 1].
        hole: (N, 1, h, w), 1 in its hole.

    Returns:
        The input (N, 25, h, w); the harmonic fill (N, 2, h, w) of the flow in pixels; the unit (N, 1, 1, 1) in pixels
        of what the network puts out.
    """
    centre = OFFSETS.index(0)
    known = 1 - unknown
    lengths = (residual[:, centre] * known[:, centre]).norm(dim=1).sum((1, 2))
    unit = LEAST_SCALE + lengths / known[:, centre].sum((1, 2, 3)).clamp_min(1)
    unit = unit[:, None, None, None]
    base = harmonic_fill(residual[:, centre, :, None], unknown[:, centre, :, None], sweeps=SWEEPS)
    base = base[:, :, 0]
    seen = ((residual / unit[:, None]) * known).clamp(-LIMIT, LIMIT)
    around = torch.cat([seen, unknown], dim=2).flatten(1, 2)
    start = (base / unit).clamp(-LIMIT, LIMIT) * unknown[:, centre]
    return torch.cat([around, start, gray * (1 - hole), hole], dim=1), base, unit


@dataclass(frozen=True)
class KnownFlow:
    """The flow between two neighbouring frames, one way, on the grid.

    Attributes:
        residual: (2, h, w), less the camera's.
        camera: (2, h, w), the camera's.
        unknown: (1, h, w), 1 where nothing is known, in the hole and where the two ways contradict each other.
        gray: (1, h, w), the first frame in [0, 1].
        hole: (1, h, w), its hole.
    """

    residual: NDArray[np.float32]
    camera: NDArray[np.float32]
    unknown: NDArray[np.float32]
    gray: NDArray[np.float32]
    hole: NDArray[np.float32]


@dataclass(frozen=True)
class CompletedFlow:
    """The same, known everywhere.

    Attributes:
        flow: (h, w, 2), in pixels.
        error: (h, w), how many pixels it is expected to be off.
    """

    flow: Flow
    error: NDArray[np.float32]


def known_flow(
    flow: Flow,
    back: Flow,
    unknown: NDArray[np.bool_],
    gray: NDArray[np.float32],
    hole: NDArray[np.bool_],
) -> KnownFlow:
    """Take the camera's motion out of the flow, and what the flow back does not confirm.

    Args:
        flow, back: (h, w, 2) on the grid, there and back, in pixels.
        unknown: (h, w), where the hole spoils it.
        gray: (h, w), the first frame in [0, 1].
        hole: (h, w), its hole.
    """
    finite = np.asarray(np.isfinite(flow).all(-1))
    flow = np.where(finite[..., None], flow, np.float32(0))
    miss = np.hypot(*np.moveaxis(flow + fetched(back, flow), -1, 0))
    least, share = CONFIRMED
    # What is no number on the way back confirms nothing.
    confirmed = miss <= least + share * np.hypot(flow[..., 0], flow[..., 1])
    unknown = unknown | ~finite | ~confirmed
    camera = motion_flow(fit_motion(flow, ~unknown), *unknown.shape)
    return KnownFlow(
        np.ascontiguousarray(np.moveaxis(flow - camera, -1, 0)),
        np.moveaxis(camera, -1, 0),
        unknown[None].astype(np.float32),
        gray[None],
        hole[None].astype(np.float32),
    )


class FlowCompleter:
    """Completes flow with the shipped network, or another.

    Args:
        network: ``None``: the shipped one.
    """

    def __init__(self, network: FlowCompletionNet | None = None) -> None:
        self.network = network or shipped_network()
        self.network.eval()

    def __call__(self, windows: Sequence[Sequence[KnownFlow | None]]) -> list[CompletedFlow]:
        """Complete the pair in the middle of each window.

        Args:
            windows: for each, the pairs at :data:`OFFSETS` in the order in which its motion goes; ``None``: not there. The
                pair in the middle is.
        """
        centre = OFFSETS.index(0)
        middle = [pair for window in windows if (pair := window[centre]) is not None]
        height, width = middle[0].unknown.shape[1:]
        residual = np.zeros((len(windows), len(OFFSETS), 2, height, width), np.float32)
        unknown = np.ones((len(windows), len(OFFSETS), 1, height, width), np.float32)
        for n, window in enumerate(windows):
            for k, pair in enumerate(window):
                if pair is not None:
                    residual[n, k], unknown[n, k] = pair.residual, pair.unknown
        gray = np.stack([pair.gray for pair in middle])
        hole = np.stack([pair.hole for pair in middle])
        with torch.inference_mode():
            arrays = map(torch.from_numpy, (residual, unknown, gray, hole))
            x, base, unit = network_input(*arrays)
            added, log_error = self.network(x.contiguous(memory_format=torch.channels_last))
            flow, error = base + added * unit, log_error.exp() * unit
        return [
            CompletedFlow(
                np.ascontiguousarray(np.moveaxis(f.numpy() + pair.camera, 0, -1)),
                e[0].numpy(),
            )
            for f, e, pair in zip(flow, error, middle, strict=True)
        ]


@cache
def shipped_network() -> FlowCompletionNet:
    """The network that comes with the package, read once."""
    return load_network(NETWORK)


def load_network(file: Path) -> FlowCompletionNet:
    """A network from a file of safetensors."""
    network = FlowCompletionNet()
    state = {name: value.float() for name, value in load_file(file).items()}
    network.load_state_dict(state)
    return network
