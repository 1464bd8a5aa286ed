# SPDX-License-Identifier: Apache-2.0
"""The whole job as one graph: uint8 frames and mask in, uint8 frames out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vinpaint import ops, reference
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import pad_to_grid, reduce_clip, smooth
from vinpaint.nn.layers import Conv, ConvBNReLU
from vinpaint.nn.streaming import CompletionStep, waits

LEVELS = 10
"""Halvings of the smooth fill in a graph for any size: enough unless all of some 1024 x 1024 pixels is hole."""


class _Graph(nn.Module):
    """What the graphs share: bytes to the networks' input, CombCN, and back to bytes.

    Args:
        model: folded here, on a copy; without strides over frames.
        dtype: what the networks compute in; frames are prepared and composited in float32.
        plain: of operations that every runtime knows, CombCN's layers two-dimensional with the frames as their batch, as
            runtimes know 2-D convolutions best. Else of vinpaint's operators.
        any_size: for frames of any height and width.

    Raises:
        InputError: a 3DCN with strides over frames.
    """

    mean: Tensor

    def __init__(
        self, model: VideoInpainter, *, dtype: torch.dtype, plain: bool, any_size: bool
    ) -> None:
        super().__init__()
        if model.config.temporal_stride:
            raise InputError("export: expected a 3DCN without strides over frames")
        model = fold_batch_norm(copy.deepcopy(model)).to("cpu", dtype)
        if plain:
            _replace_layers(model.comb, flat=True)
        self.model, self.dtype, self._plain = model, dtype, plain
        self._levels = LEVELS if any_size else None
        self.register_buffer("mean", model.mean.float(), persistent=False)

    def _opened(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (F, H, W, 3) as float, and what is unknown of them (F, H, W), 0 to 1; a mask of floats is that already."""
        if mask.is_floating_point():
            return frames.float(), mask
        known, unknown = frames.float(), mask.float()  # a runtime may take bytes only into a cast
        carried = self.model.config.prefill == "carried"
        return known, unknown / 255 if carried else (unknown > 0).float()

    def _on_grid(self, known: Tensor, unknown: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, F, h, w) in [0, 1] and (1, 1, F, h, w), h and w on the grid."""
        clip = (known / 255).permute(3, 0, 1, 2)[None]
        grid = self.model.grid
        if self._levels is not None:  # sizes that are only known when it runs are on it already
            return clip, unknown[None, None]
        return pad_to_grid(clip, grid), pad_to_grid(unknown[None, None], grid)

    def _small_input(self, clip: Tensor, unknown: Tensor) -> Tensor:
        """3DCN's input."""
        return self._network_input(*reduce_clip(clip, unknown, self.model.config.reduction))

    def _network_input(self, clip: Tensor, unknown: Tensor) -> Tensor:
        config = self.model.config
        pixels = torch.where(unknown >= 1, self.mean, clip)
        if config.prefill != "mean":
            pixels = smooth(pixels, unknown, levels=self._levels)
        channel = unknown if config.confidence else (unknown > 0).to(unknown.dtype)
        return torch.cat([pixels, channel], dim=1).to(self.dtype)

    def _filled(
        self, clip: Tensor, padded: Tensor, guidance: Tensor | None, known: Tensor, unknown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The frames as bytes, and whether values were no numbers."""
        height, width = known.shape[1:3]
        x = self._network_input(clip, padded)
        if self._plain:
            x = x[0].transpose(0, 1)
            guidance = None if guidance is None else guidance[0].transpose(0, 1)
        completed = self.model.added_to_fill(self.model.comb.restore(x, guidance), x)
        if not self._plain:
            completed = completed[0].transpose(0, 1)  # (F, 3, H, W)
        completed = completed[..., :height, :width].float().permute(0, 2, 3, 1)
        numbers = (completed == completed).float().amin((0, 1, 2, 3)).reshape(1)  # noqa: PLR0124
        hole = unknown[..., None] > 0
        filled = torch.where(hole, (completed.clamp(0, 1) * 255).round(), known)
        return filled.to(torch.uint8), (1 - numbers).to(torch.uint8)


class ClipGraph(_Graph):
    """Both networks with all that is around them, for clips of one length and size.

    Args:
        model: the networks; a copy is folded.
        context: frames before and after those that are wanted, which 3DCN looks at.
        dtype: what the networks compute in.
        any_size: for frames of any height and width that are multiples of the networks' grid.

    Raises:
        InputError: a 3DCN with strides over frames.
    """

    def __init__(
        self,
        model: VideoInpainter,
        *,
        context: int = 0,
        dtype: torch.dtype = torch.float32,
        any_size: bool = False,
    ) -> None:
        super().__init__(model, dtype=dtype, plain=True, any_size=any_size)
        if self.model.completion is not None:
            _replace_layers(self.model.completion)
        self.context = context

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
        known, unknown = self._opened(frames, mask)
        clip, padded = self._on_grid(known, unknown)
        wanted = slice(self.context, frames.shape[0] - self.context)
        guidance = None
        if self.model.completion is not None:
            x = self._small_input(clip, padded)
            coarse = self.model.completion(x, live.float())[:, :, wanted]
            guidance = self.model.guide_by(coarse, x[:, :, wanted])[1]
        clip, padded = clip[:, :, wanted], padded[:, :, wanted]
        return self._filled(clip, padded, guidance, known[wanted], unknown[wanted])


class StreamGraph(_Graph):
    """Both networks with all that is around them, for one more frame of a stream: see :class:`vinpaint.Streamer`.

    Args:
        model: the networks; a copy is folded.
        lookahead: frames that a frame waits for.
        dtype: what the networks compute in, and of the state.
        plain: of operations that every runtime knows, else of vinpaint's operators.

    Raises:
        InputError: a 3DCN with strides over frames, or none.
    """

    def __init__(
        self,
        model: VideoInpainter,
        *,
        lookahead: int,
        dtype: torch.dtype = torch.float32,
        plain: bool = True,
    ) -> None:
        if model.completion is None:
            raise InputError("streaming: expected networks with a 3DCN for an engine")
        super().__init__(model, dtype=dtype, plain=plain, any_size=False)
        assert self.model.completion is not None
        convolve = _convolve_flat if plain else ops.conv_bias_relu
        self.step = CompletionStep(self.model.completion, waits(lookahead), convolve)
        self.model.completion = None  # the step has its weights

    def blank(self, height: int, width: int) -> list[Tensor]:
        """The state before a stream's first frame, for frames of this size."""
        return blank_state(self.step, self.model, height, width, dtype=self.dtype)

    def forward(
        self,
        frame: Tensor,
        mask: Tensor,
        late_frame: Tensor,
        late_mask: Tensor,
        live: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step.

        Args:
            frame: (1, H, W, 3), uint8: the next frame; after the last one anything.
            mask: (1, H, W), uint8: its mask, as of :meth:`ClipGraph.forward`; or float32, what is unknown of each pixel.
            late_frame: the frame as many steps ago as the stream looks ahead, which is completed now.
            late_mask: its mask.
            live: (13,), uint8: which maps hold a frame of the stream, see :class:`~vinpaint.nn.streaming.Clock`.
            state: what the step before gave; for the first :meth:`blank`.

        Returns:
            ``completed`` (1, H, W, 3), ``invalid`` (1,), both as of :meth:`ClipGraph.forward`, and the state for the next step.
        """
        x = self._small_input(*self._on_grid(*self._opened(frame, mask)))
        kept = [[frames[i : i + 1].unsqueeze(2) for i in range(len(frames))] for frames in state]
        coarse, kept = self.step(x, live.float(), kept)
        known, unknown = self._opened(late_frame, late_mask)
        clip, padded = self._on_grid(known, unknown)
        guidance = self.model.guide_by(coarse, self._small_input(clip, padded))[1]
        filled, invalid = self._filled(clip, padded, guidance, known, unknown)
        return filled, invalid, *(torch.cat([f.squeeze(2) for f in frames]) for frames in kept)


def blank_state(
    step: CompletionStep, model: VideoInpainter, height: int, width: int, *, dtype: torch.dtype
) -> list[Tensor]:
    """A stream's state before its first frame: of each map the frames that are kept, (frames, C, h, w)."""
    reduction, grid = model.config.reduction, model.grid
    rows, columns = (-(-size // grid) * grid // reduction for size in (height, width))
    kept = step.blank(rows, columns, like=torch.empty((), dtype=dtype))
    return [torch.cat([frame.squeeze(2) for frame in frames]) for frames in kept]


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
        return _convolve(x, self.weight, self.bias, skip=skip, residual=residual, **self.options)


def _replace_layers(network: nn.Module, *, flat: bool = False) -> None:
    for name, layer in list(network.named_children()):
        if isinstance(layer, ConvBNReLU | Conv):
            setattr(network, name, _Plain(layer, flat=flat))


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, transposed: bool = False, **options: Any
) -> Tensor:
    """:func:`vinpaint.reference.conv_bias_relu`; TensorRT for RTX has no transposed convolution in bfloat16, so float32 then."""
    if not (transposed and x.dtype == torch.bfloat16):
        return reference.conv_bias_relu(x, weight, bias, transposed=transposed, **options)
    wide: dict[str, Any] = {
        name: value.float() if isinstance(value, Tensor) else value
        for name, value in options.items()
    }
    out = reference.conv_bias_relu(x.float(), weight.float(), bias, transposed=True, **wide)
    return out.to(x.dtype)


def _convolve_flat(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    skip: Tensor | None,
    stride: Sequence[int] = (1, 1, 1),
    dilation: Sequence[int] = (1, 1, 1),
    transposed: bool = False,
    relu: bool,
) -> Tensor:
    """A convolution of one frame (1, C, 1, h, w), two-dimensional."""
    out = _convolve(
        x.squeeze(2),
        weight.squeeze(2),
        bias,
        skip=None if skip is None else skip.squeeze(2),
        stride=stride[1:],
        dilation=dilation[1:],
        transposed=transposed,
        relu=relu,
    )
    return out.unsqueeze(2)
