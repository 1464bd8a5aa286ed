# SPDX-License-Identifier: Apache-2.0
"""The joint model: from frames and a mask to completed frames, through 3DCN and CombCN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinpaint.nn.comb import CombCN
from vinpaint.nn.completion import CompletionNet3d

REDUCTION = 2
"""3DCN works on frames this much smaller, in height and in width."""

GRID = 8
"""Height and width are padded to a multiple of this: two strides of 2, at half resolution."""


@dataclass(frozen=True)
class InpainterConfig:
    """Options of the joint model.

    Attributes:
        mode: ``"combcn"``: 3DCN guides CombCN; ``"2dcn"``: CombCN alone, frame by frame.
        mean: red, green, blue in [0, 1] that stand in for hole pixels: the training set's mean.
        composite_guidance: put the known low-resolution pixels over 3DCN's output before it guides.
    """

    mode: Literal["combcn", "2dcn"] = "combcn"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    composite_guidance: bool = True


class VideoInpainter(nn.Module):
    """3DCN and CombCN, trained jointly and run one after the other.

    Example::

        model = VideoInpainter()
        completed, coarse = model(frames, mask)  # (N, 3, F, H, W) and (N, 3, F, H/2, W/2)
    """

    mean: Tensor

    def __init__(self, config: InpainterConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or InpainterConfig()
        if config.mode not in ("combcn", "2dcn"):
            raise ValueError(f"mode must be 'combcn' or '2dcn', got {config.mode!r}")
        guided = config.mode == "combcn"
        self.completion = CompletionNet3d() if guided else None
        self.comb = CombCN(guidance=guided)
        self.register_buffer(
            "mean", torch.tensor(config.mean).view(1, 3, 1, 1, 1), persistent=False
        )

    @property
    def halo(self) -> int:
        """Frames to either side that one output frame depends on."""
        return 0 if self.completion is None else self.completion.halo

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Complete a clip.

        Args:
            frames: (N, 3, F, H, W), floating, in [0, 1]. What lies in the hole is not looked at.
            mask: (N, 1, F, H, W), same dtype, 1 in the hole and 0 elsewhere.

        Returns:
            ``(completed, coarse)``: CombCN's frames (N, 3, F, H, W) and 3DCN's (N, 3, F, ceil(H/2),
            ceil(W/2)), both as the last layer gives them: linear, neither clamped nor composited.
            ``coarse`` is ``None`` for 2DCN.

        Raises:
            ValueError: shapes that do not fit together.
        """
        _check(frames, mask)
        height, width = frames.shape[-2:]
        frames, mask = pad_to_grid(frames), pad_to_grid(mask)
        coarse = guidance = None
        if self.completion is not None:
            coarse, guidance = self.complete(*reduce_clip(frames, mask))
            coarse = coarse[..., : -(-height // REDUCTION), : -(-width // REDUCTION)]
        completed = self.restore(frames, mask, guidance)
        return completed[..., :height, :width], coarse

    def complete(self, small: Tensor, small_mask: Tensor) -> tuple[Tensor, Tensor]:
        """3DCN alone, on what :func:`reduce_clip` gives.

        Args:
            small: (N, 3, F, h, w); h and w multiples of 4.
            small_mask: (N, 1, F, h, w).

        Returns:
            ``(coarse, guidance)``, both (N, 3, F, h, w): 3DCN's output, and what guides CombCN.
        """
        return self.guide(self.network_input(small, small_mask))

    def guide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """3DCN alone, on its input (N, 4, F, h, w): mean-filled frames and their mask."""
        if self.completion is None:
            raise ValueError("this model is a 2DCN: it has no 3DCN")
        coarse = self.completion(x)
        if not self.config.composite_guidance:
            return coarse, coarse
        return coarse, torch.where(x[:, 3:] > 0, coarse, x[:, :3].to(coarse.dtype))

    def restore(self, frames: Tensor, mask: Tensor, guidance: Tensor | None) -> Tensor:
        """CombCN alone: (N, 3, F, H, W). Height and width on the grid; frames are independent."""
        return self.comb(self.network_input(frames, mask), guidance)

    def network_input(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(N, 4, F, H, W) in channels_last_3d: frames with the hole filled by the mean, and the mask."""
        batch, _, count, height, width = frames.shape
        x = torch.empty(
            (batch, 4, count, height, width),
            dtype=frames.dtype,
            device=frames.device,
            memory_format=torch.channels_last_3d,
        )
        x[:, :3] = torch.where(mask > 0, self.mean.to(frames.dtype), frames)
        x[:, 3:] = mask
        return x


def pad_to_grid(clip: Tensor) -> Tensor:
    """Repeat the last row and column until height and width are multiples of :data:`GRID`."""
    bottom, right = -clip.shape[-2] % GRID, -clip.shape[-1] % GRID
    if bottom == 0 and right == 0:
        return clip
    return F.pad(clip, (0, right, 0, bottom, 0, 0), mode="replicate")


def reduce_clip(frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The clip 3DCN sees: frames by the area filter; a low-resolution pixel is hole if any of its is."""
    batch, _, count, height, width = frames.shape
    shape = (count, height // REDUCTION, REDUCTION, width // REDUCTION, REDUCTION)
    return (
        frames.reshape(batch, 3, *shape).mean((4, 6)),
        mask.reshape(batch, 1, *shape).amax((4, 6)),
    )


def _check(frames: Tensor, mask: Tensor) -> None:
    if frames.dim() != 5 or frames.shape[1] != 3:
        raise ValueError(f"frames must be (N, 3, F, H, W), got {tuple(frames.shape)}")
    expected = (frames.shape[0], 1, *frames.shape[2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"mask must be {expected} like the frames, got {tuple(mask.shape)}")
    if not frames.is_floating_point() or mask.dtype != frames.dtype:
        raise ValueError(
            f"frames and mask must share a floating dtype, got {frames.dtype} and {mask.dtype}"
        )
