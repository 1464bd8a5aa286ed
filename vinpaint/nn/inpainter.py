# SPDX-License-Identifier: Apache-2.0
"""The joint model: from frames and a mask to completed frames, through 3DCN and CombCN."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinpaint.nn.comb import CombCN
from vinpaint.nn.completion import CompletionNet3d
from vinpaint.nn.prefill import harmonic_fill

MODES = ("combcn", "2dcn")
PREFILLS = ("mean", "smooth", "carried")
REDUCTIONS = (2, 4)


@dataclass(frozen=True)
class InpainterConfig:
    """Options of the joint model.

    Attributes:
        mode: ``"combcn"``: 3DCN guides CombCN; ``"2dcn"``: CombCN alone, frame by frame.
        mean: red, green, blue in [0, 1] that stand in for hole pixels: the training set's mean.
        composite_guidance: put the known low-resolution pixels over 3DCN's output before it guides.
        prefill: what the networks see in the hole. ``"mean"``, the paper's, is the mean pixel. ``"smooth"`` is the
            frame's own harmonic fill, and what the networks put out is added to it. Both take what was carried from
            other frames as known. ``"carried"`` takes it as a part of the hole that is filled already: the networks
            add to it, and to the harmonic fill where nothing was carried.
        confidence: the networks' fourth channel says of a carried pixel how much of it is not believed, between 0 and 1,
            and not 1 as of the rest of the hole; only with ``prefill="carried"``.
        reduction: 3DCN works on frames this much smaller, in height and in width: 2, the paper's, or 4.
        temporal_stride: 3DCN's strided layers halve the number of frames too: the paper's ablation. Such a
            network is not the same at every frame, so chunks of a long clip equal the one-shot result only
            approximately.
        width: share of the paper's channels in the hidden layers, rounded to multiples of 8.
    """

    mode: Literal["combcn", "2dcn"] = "combcn"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    composite_guidance: bool = True
    prefill: Literal["mean", "smooth", "carried"] = "mean"
    confidence: bool = False
    reduction: int = 2
    temporal_stride: bool = False
    width: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in (("mode", MODES), ("prefill", PREFILLS), ("reduction", REDUCTIONS)):
            if getattr(self, name) not in allowed:
                *others, last = map(repr, allowed)
                expected = f"{', '.join(others)} or {last}"
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)!r}")
        if self.confidence and self.prefill != "carried":
            raise ValueError(
                f"confidence must be False with prefill {self.prefill!r}, which takes carried pixels as known"
            )
        if not 0 < self.width <= 4:
            raise ValueError(f"width must lie between 0 and 4, got {self.width!r}")


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
        guided = config.mode == "combcn"
        self.completion = (
            CompletionNet3d(config.width, temporal_stride=config.temporal_stride)
            if guided
            else None
        )
        self.comb = CombCN(config.width, guidance=guided)
        if config.prefill != "mean":  # the networks begin by leaving the fill as it is
            for last in (self.comb.conv17, *([self.completion.conv12] if self.completion else [])):
                nn.init.zeros_(last.weight)
        self.register_buffer(
            "mean", torch.tensor(config.mean).view(1, 3, 1, 1, 1), persistent=False
        )

    @property
    def halo(self) -> int:
        """Frames to either side that one output frame depends on."""
        return 0 if self.completion is None else self.completion.halo

    @classmethod
    def from_pretrained(cls, weights: str | Path | None = None) -> VideoInpainter:
        """A model from a folder or by name; see :func:`vinpaint.pretrained.load_pretrained`."""
        from vinpaint.pretrained import load_pretrained

        return load_pretrained(weights)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write it to a folder; see :func:`vinpaint.pretrained.save_pretrained`."""
        from vinpaint.pretrained import save_pretrained

        save_pretrained(self, folder)

    @property
    def grid(self) -> int:
        """Height and width are padded to a multiple of this: 3DCN has two strides of 2."""
        return 4 * self.config.reduction

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Complete a clip.

        Args:
            frames: (N, 3, F, H, W), floating, in [0, 1]. What lies in the hole is not looked at.
            mask: (N, 1, F, H, W), same dtype, 1 in the hole and 0 elsewhere. With ``prefill="carried"`` also values
                between, for pixels of the hole that hold a colour which is believed as much as is missing to 1.

        Returns:
            ``(completed, coarse)``: CombCN's frames (N, 3, F, H, W) and 3DCN's (N, 3, F, ceil(H/r),
            ceil(W/r)), r the config's ``reduction``, both as the last layer gives them: linear, neither clamped nor composited.
            ``coarse`` is ``None`` for 2DCN.

        Raises:
            ValueError: shapes that do not fit together.
        """
        _check(frames, mask)
        height, width = frames.shape[-2:]
        reduction = self.config.reduction
        frames, mask = pad_to_grid(frames, self.grid), pad_to_grid(mask, self.grid)
        coarse = guidance = None
        if self.completion is not None:
            coarse, guidance = self.complete(*reduce_clip(frames, mask, reduction))
            coarse = coarse[..., : -(-height // reduction), : -(-width // reduction)]
        completed = self.restore(frames, mask, guidance)
        return completed[..., :height, :width], coarse

    def complete(self, small: Tensor, small_mask: Tensor) -> tuple[Tensor, Tensor]:
        """3DCN alone, on what :func:`reduce_clip` gives.

        Args:
            small: (N, 3, F, h, w); h and w multiples of 4.
            small_mask: (N, 1, F, h, w).

        Returns:
            ``(coarse, guidance)``: 3DCN's output (N, 3, F, h, w), and what guides CombCN, the same size for
            a reduction of 2, twice the size for 4.
        """
        return self.guide(self.network_input(small, small_mask))

    def guide(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """3DCN alone, on its input (N, 4, F, h, w): see :meth:`network_input`."""
        if self.completion is None:
            raise ValueError("this model is a 2DCN: it has no 3DCN")
        return self.guide_by(self.completion(x), x)

    def guide_by(self, completed: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`guide` gives, from what 3DCN ``completed`` of its input ``x``."""
        coarse = guidance = self.added_to_fill(completed, x)
        if self.config.composite_guidance:
            guidance = torch.where(x[:, 3:] > 0, coarse, x[:, :3].to(coarse.dtype))
        if self.config.reduction == 4:  # CombCN wants its guidance at half the size
            guidance = F.interpolate(guidance, scale_factor=(1.0, 2.0, 2.0), mode="trilinear")
        return coarse, guidance

    def restore(self, frames: Tensor, mask: Tensor, guidance: Tensor | None) -> Tensor:
        """CombCN alone: (N, 3, F, H, W). Height and width on the grid; frames are independent."""
        return self.paint(self.network_input(frames, mask), guidance)

    def paint(self, x: Tensor, guidance: Tensor | None) -> Tensor:
        """CombCN alone, on its input (N, 4, F, H, W): see :meth:`network_input`."""
        return self.added_to_fill(self.comb(x, guidance), x)

    def added_to_fill(self, output: Tensor, x: Tensor) -> Tensor:
        """What a network's ``output`` for its input ``x`` stands for: itself, or what to add to the fill in ``x``."""
        return output if self.config.prefill == "mean" else output + x[:, :3].to(output.dtype)

    def network_input(self, frames: Tensor, mask: Tensor) -> Tensor:
        """(N, 4, F, H, W) in channels_last_3d: frames with their hole filled beforehand, and the mask."""
        batch, _, count, height, width = frames.shape
        x = torch.empty(
            (batch, 4, count, height, width),
            dtype=frames.dtype,
            device=frames.device,
            memory_format=torch.channels_last_3d,
        )
        x[:, :3] = torch.where(mask >= 1, self.mean.to(frames.dtype), frames)
        x[:, 3:] = mask
        return self.prefilled(x)

    def prefilled(self, x: Tensor) -> Tensor:
        """``x`` (N, 4, F, H, W), whose hole the mean pixel fills, with what ``config.prefill`` wants there, in place.

        A frame that is all hole keeps the mean pixel.
        """
        if self.config.prefill != "mean":
            x[:, :3] = smooth(x[:, :3], x[:, 3:])
        if self.config.prefill == "carried" and not self.config.confidence:
            x[:, 3:] = x[:, 3:] > 0
        return x

    def completes(self, mask: Tensor) -> Tensor:
        """Where the networks are to put something, as bool: carried pixels too, or only what is 1 in ``mask``."""
        return mask > 0 if self.config.prefill == "carried" else mask >= 1


def smooth(pixels: Tensor, mask: Tensor, levels: int | None = None) -> Tensor:
    """``pixels`` (N, 3, F, H, W) with a harmonic fill where ``mask`` is 1; a frame that is all hole stays as it is.

    ``levels`` as of :func:`~vinpaint.nn.prefill.harmonic_fill`.
    """
    empty = (mask >= 1).float()
    fill = harmonic_fill(pixels.float(), empty, levels=levels).to(pixels.dtype)
    return torch.where(empty.amin((3, 4), keepdim=True) > 0, pixels, fill)


def pad_to_grid(clip: Tensor, grid: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of ``grid``."""
    bottom, right = -clip.shape[-2] % grid, -clip.shape[-1] % grid
    if bottom == 0 and right == 0:
        return clip
    return F.pad(clip, (0, right, 0, bottom, 0, 0), mode="replicate")


def reduce_clip(frames: Tensor, mask: Tensor, reduction: int = 2) -> tuple[Tensor, Tensor]:
    """The clip 3DCN sees: frames by the area filter; a low-resolution pixel is as much hole as any of its is."""
    batch, _, count, height, width = frames.shape
    shape = (count, height // reduction, reduction, width // reduction, reduction)
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
