# SPDX-License-Identifier: Apache-2.0
"""3DCN one frame at a time: of every feature map the few frames are kept that a kernel still needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from vinpaint import ops
from vinpaint.nn.completion import CompletionNet3d
from vinpaint.nn.layers import Conv, ConvBNReLU

SKIPS = {9: 4, 10: 3, 11: 2}
"""The layers that read a second map, and which: map 0 is the input, map n the output of layer n."""

LAYERS = 12

ORDER = (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
"""The layers, counted from 0, in the order in which they are allowed to wait for one frame more. Measured: a
frame's wait of the first layer is worth more than four of the last ones."""

Live = Sequence[bool] | Tensor
"""Which maps hold a frame of the clip at a step, and whether the output does (13 values): of the others all values are 0,
as before a clip's begin and after its end. Without a tensor they are not even computed."""


class CompletionStep(nn.Module):
    """What :class:`~vinpaint.nn.CompletionNet3d` computes for one more frame of a clip.

    A kernel over three frames is one over the channels of three frames put one behind the other, so each layer is
    computed for one frame a step, once. Layer 1 sees two frames ahead, every other layer one; a layer either waits for them
    or takes them for the last that has come. All waiting, the outputs are those of the whole clip, 13 frames late.

    Args:
        net: folded (:func:`~vinpaint.nn.fold_batch_norm`), without temporal strides; its weights are copied, not its biases.
        waits: frames that each of the twelve layers waits for, from the first: 0 to 2, then 0 or 1.
        convolve: called as :func:`vinpaint.ops.conv_bias_relu` is; that itself keeps its weights prepared.

    Raises:
        ValueError: a network that is not folded or strides over frames, or other waits.
    """

    def __init__(
        self,
        net: CompletionNet3d,
        waits: Sequence[int],
        convolve: Callable[..., Tensor] = ops.conv_bias_relu,
    ) -> None:
        super().__init__()
        if net.temporal_stride:
            raise ValueError("a 3DCN with strides over frames is not the same at every frame")
        layers: list[Any] = list(net.children())  # in the order of the paper's table
        most = [layer.weight.shape[2] // 2 for layer in layers]
        if len(waits) != len(most) or any(
            not 0 <= w <= m for w, m in zip(waits, most, strict=True)
        ):
            raise ValueError(f"waits must be from 0 to {most}, got {list(waits)}")
        self.delays = [0, *accumulate(waits)]
        """Frames that each map is late, from the input to the output."""
        made: list[_Layer] = []
        for layer, wait in zip(layers, waits, strict=True):
            before = made[-1].channels if made else layer.weight.shape[1]
            made.append(_Layer(layer, wait, before, convolve))
        self.layers = nn.ModuleList(made)
        self.kept = self._frames_kept()
        """Frames of each of the twelve maps that a step needs beside its own."""

    def _frames_kept(self) -> list[int]:
        kept = [0] * LAYERS
        for number, layer in enumerate(self._layers(), start=1):
            kept[number - 1] = max(kept[number - 1], layer.window - 1)
            if number in SKIPS:
                skip = SKIPS[number]
                kept[skip] = max(kept[skip], self._ahead(number) + layer.window - 1)
        return kept

    def _ahead(self, number: int) -> int:
        """Frames that a layer's second map runs ahead of its first."""
        return self.delays[number - 1] - self.delays[SKIPS[number]]

    def _layers(self) -> list[_Layer]:
        return list(self.layers)  # type: ignore[arg-type]

    def blank(self, height: int, width: int, *, like: Tensor) -> list[list[Tensor]]:
        """What is kept before the first frame of a clip whose inputs are of this size: zeros of the dtype of ``like``."""
        blank, channels = [], self._layers()[0].inputs
        for kept, layer in zip(self.kept, self._layers(), strict=True):
            frame = like.new_zeros((1, height, width, channels)).permute(0, 3, 1, 2).unsqueeze(2)
            blank.append([frame] * kept)
            height, width = layer.scaled(height), layer.scaled(width)
            channels = layer.channels
        return blank

    def forward(
        self, x: Tensor, live: Live, kept: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """One step.

        Args:
            x: the next frame's input (1, 4, 1, h, w); after the clip's end anything of that shape.
            live: of this step.
            kept: what the step before gave; for the first :meth:`blank`.

        Returns:
            The output (1, 3, 1, h, w) of the frame as many steps ago as the last delay says, and what is to be kept.
        """
        maps = [[*kept[0], _alive(x, live[0])]]
        for number, layer in enumerate(self._layers(), start=1):
            of = maps[-1]
            if live[number] is False:
                out = torch.zeros_like(x[:, :3] if number == LAYERS else kept[number][-1])
            else:
                skip = self._skip(number, maps, layer.window)
                out = _alive(layer(of[-layer.window :], skip), live[number])
            maps.append([*kept[number], out] if number < LAYERS else [out])
        return maps.pop()[0], [of[1:] for of in maps]

    def _skip(
        self, number: int, maps: Sequence[Sequence[Tensor]], window: int
    ) -> Sequence[Tensor] | None:
        if number not in SKIPS:
            return None
        skip = maps[SKIPS[number]]
        end = len(skip) - self._ahead(number)
        return skip[end - window : end]


class StreamingCompletion:
    """:class:`CompletionStep` with what it keeps: frames in, finished ones out.

    Args:
        net: as there.
        waits: as there.
    """

    def __init__(self, net: CompletionNet3d, waits: Sequence[int]) -> None:
        self._step = CompletionStep(net, waits)
        self.clock = Clock(self._step.delays)
        self._kept: list[list[Tensor]] | None = None

    @property
    def lookahead(self) -> int:
        """Frames that an output is late."""
        return self._step.delays[-1]

    def reset(self) -> None:
        """Forget the clip before."""
        self.clock.reset()
        self._kept = None

    def push(self, x: Tensor) -> list[Tensor]:
        """The next frame's input (1, 4, 1, h, w); what is finished by it: no or one output (1, 3, 1, h, w)."""
        if self._kept is None:
            self._kept = self._step.blank(x.shape[3], x.shape[4], like=x)
        return self._advance(x, self.clock.tick())

    def flush(self) -> list[Tensor]:
        """The outputs that are still due when no more frames come; the next frame begins another clip."""
        outputs = []
        if self._kept is not None:
            nothing = torch.zeros_like(self._kept[0][-1])
            for live in self.clock.end():
                outputs += self._advance(nothing, live)
        self._kept = None
        return outputs

    def _advance(self, x: Tensor, live: list[bool]) -> list[Tensor]:
        assert self._kept is not None
        out, self._kept = self._step(x, live, self._kept)
        return [out] if live[-1] else []


class Clock:
    """Which maps hold a frame of the clip, step by step.

    Args:
        delays: frames that each map is late.
    """

    def __init__(self, delays: Sequence[int]) -> None:
        self._delays = list(delays)
        self._steps = 0

    def reset(self) -> None:
        """The next step is another clip's first."""
        self._steps = 0

    def tick(self) -> list[bool]:
        """Of the step of one more frame."""
        self._steps += 1
        return [delay < self._steps for delay in self._delays]

    def end(self) -> list[list[bool]]:
        """Of the steps after the last frame; the next one is another clip's first."""
        frames, self._steps = self._steps, 0
        if frames == 0:
            return []
        after = range(frames + 1, frames + self._delays[-1] + 1)
        return [[delay < step <= frames + delay for delay in self._delays] for step in after]


def waits(lookahead: int) -> list[int]:
    """Frames that each layer of 3DCN waits for, together at most ``lookahead``."""
    found = [0] * LAYERS
    for layer in ORDER:
        if sum(found) < lookahead:
            found[layer] += 1
    return found


class _Layer(nn.Module):
    """One layer, of one frame, from a window of frames."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, layer: ConvBNReLU | Conv, wait: int, channels: int, convolve: Callable[..., Tensor]
    ) -> None:
        super().__init__()
        weight = layer.weight.detach()
        assert layer.bias is not None, "checked by fold_batch_norm"
        fused = isinstance(layer, ConvBNReLU)
        self._transposed = isinstance(layer, ConvBNReLU) and layer.transposed
        self._options: dict[str, Any] = {"relu": fused}
        self._stride = 1
        if isinstance(layer, ConvBNReLU):
            self._options |= layer.geometry
            self._stride = layer.stride[1]
        if convolve is ops.conv_bias_relu:
            self._options["cache"] = ops.WeightCache()
        self._convolve = convolve
        self.inputs, self.channels = channels, layer.bias.shape[0]
        self.window = weight.shape[2] // 2 + 1 + wait
        """Frames that it reads."""
        taps = list(weight.unbind(2))  # a transposed kernel lies the other way round in time
        if self._transposed:
            taps.reverse()
        ahead = taps[self.window :]  # these frames are taken for the last that has come
        taps = [*taps[: self.window - 1], sum(ahead, taps[self.window - 1])]
        flat = _flattened(taps, channels, axis=0 if self._transposed else 1)
        self.register_buffer("weight", flat)
        self.register_buffer("bias", layer.bias.detach())

    def scaled(self, size: int) -> int:
        """Height or width of the output."""
        return size * self._stride if self._transposed else -(-size // self._stride)

    def forward(self, frames: Sequence[Tensor], skip: Sequence[Tensor] | None) -> Tensor:
        x = torch.cat(list(frames), dim=1)
        other = None if skip is None else torch.cat(list(skip), dim=1)
        return self._convolve(x, self.weight, self.bias, skip=other, **self._options)


def _flattened(taps: Sequence[Tensor], channels: int, axis: int) -> Tensor:
    """The weight for the ``channels`` of the input in all frames, then for the skip's in all frames."""
    first = [tap.narrow(axis, 0, channels) for tap in taps]
    rest = taps[0].shape[axis] - channels
    second = [tap.narrow(axis, channels, rest) for tap in taps] if rest else []
    return torch.cat(first + second, dim=axis).unsqueeze(2).contiguous()


def _alive(frame: Tensor, live: bool | Tensor) -> Tensor:
    if isinstance(live, Tensor):
        return torch.where(live > 0, frame, 0)
    return frame if live else torch.zeros_like(frame)
