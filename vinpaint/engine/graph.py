# SPDX-License-Identifier: Apache-2.0
"""The whole job as one graph of plain operations: uint8 frames and mask in, uint8 frames out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from vinpaint import reference
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import pad_to_grid, reduce_clip, smooth
from vinpaint.nn.layers import Conv, ConvBNReLU


class ClipGraph(nn.Module):
    """Both networks with all that is around them, for clips of one length and size.

    CombCN's layers are two-dimensional here, with the frames as its batch: runtimes know 2-D convolutions best.

    Args:
        model: folded here, on a copy; without strides over frames.
        context: frames before and after those that are wanted, which 3DCN looks at.
        dtype: what the networks compute in; frames are prepared and composited in float32.

    Raises:
        InputError: a 3DCN with strides over frames.
    """

    mean: Tensor

    def __init__(
        self, model: VideoInpainter, *, context: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if model.config.temporal_stride:
            raise InputError("export: expected a 3DCN without strides over frames")
        model = fold_batch_norm(copy.deepcopy(model)).to("cpu", dtype)
        if model.completion is not None:
            _replace_layers(model.completion)
        _replace_layers(model.comb, flat=True)
        self.model, self.context, self.dtype = model, context, dtype
        self.register_buffer("mean", model.mean.float(), persistent=False)

    def forward(self, frames: Tensor, mask: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the hole of a clip.

        Args:
            frames: (F, H, W, 3), uint8, red green blue.
            mask: (F, H, W), uint8, nonzero in the hole; for networks that start from what was carried 255 where nothing
                was, and between 0 and 255 the share of a carried pixel that is not believed.
            live: (F,), uint8: 1 for frames of the clip, 0 for others that only fill it up to F.

        Returns:
            ``completed`` (F - 2 * context, H, W, 3), uint8: equal to ``frames`` outside the hole; and ``invalid`` (1,), uint8:
            1 if the networks gave values that are no numbers, else 0.
        """
        model, config = self.model, self.model.config
        height, width = frames.shape[1:3]
        known, unknown = frames.float(), mask.float()  # a runtime may take bytes only into a cast
        unknown = unknown / 255 if config.prefill == "carried" else (unknown > 0).float()
        clip = pad_to_grid((known / 255).permute(3, 0, 1, 2)[None], model.grid)
        padded = pad_to_grid(unknown[None, None], model.grid)
        wanted = slice(self.context, frames.shape[0] - self.context)
        guidance = None
        if model.completion is not None:
            x = self._network_input(*reduce_clip(clip, padded, config.reduction))
            coarse = model.completion(x, live.float())[:, :, wanted]
            guidance = model.guide_by(coarse, x[:, :, wanted])[1][0].transpose(0, 1)
        x = self._network_input(clip[:, :, wanted], padded[:, :, wanted])[0].transpose(0, 1)
        completed = model.added_to_fill(model.comb.restore(x, guidance), x)  # (F', 3, H, W)
        completed = completed[..., :height, :width].float().permute(0, 2, 3, 1)
        numbers = (completed == completed).float().amin((0, 1, 2, 3)).reshape(1)  # noqa: PLR0124
        hole = unknown[wanted, ..., None] > 0
        filled = torch.where(hole, (completed.clamp(0, 1) * 255).round(), known[wanted])
        return filled.to(torch.uint8), (1 - numbers).to(torch.uint8)

    def _network_input(self, clip: Tensor, unknown: Tensor) -> Tensor:
        config = self.model.config
        pixels = torch.where(unknown >= 1, self.mean, clip)
        if config.prefill != "mean":
            pixels = smooth(pixels, unknown)
        channel = unknown if config.confidence else (unknown > 0).to(unknown.dtype)
        return torch.cat([pixels, channel], dim=1).to(self.dtype)


class _Plain(nn.Module):
    """A layer of either network in plain torch; ``flat``: of frames (N, C, H, W)."""

    def __init__(self, layer: ConvBNReLU | Conv, *, flat: bool) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.options: dict[str, Any] = {"relu": isinstance(layer, ConvBNReLU)}
        if isinstance(layer, ConvBNReLU):
            self.options |= layer.geometry
        if flat:
            self.weight = nn.Parameter(self.weight[:, :, 0].contiguous(), requires_grad=False)
            for name in ("stride", "dilation"):
                self.options[name] = self.options.get(name, (1, 1, 1))[1:]

    def forward(
        self, x: Tensor, skip: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        return reference.conv_bias_relu(
            x, self.weight, self.bias, skip=skip, residual=residual, **self.options
        )


def _replace_layers(network: nn.Module, *, flat: bool = False) -> None:
    for name, layer in list(network.named_children()):
        if isinstance(layer, ConvBNReLU | Conv):
            setattr(network, name, _Plain(layer, flat=flat))
