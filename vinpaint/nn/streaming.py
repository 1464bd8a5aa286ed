# SPDX-License-Identifier: Apache-2.0
"""3DCN one frame at a time: every layer keeps the few frames that its kernel still needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from vinpaint import ops
from vinpaint.nn.completion import CompletionNet3d
from vinpaint.nn.layers import Conv, ConvBNReLU


class StreamingCompletion:
    """What :class:`~vinpaint.nn.CompletionNet3d` computes of a clip, while the clip still comes.

    A kernel over three frames is one over the channels of three frames put one behind the other, so each layer is
    computed for one frame, once. Layer 1 sees two frames ahead, every other layer one; a layer either waits for them or
    does without, as at the end of a clip. All waiting, the outputs are those of the whole clip, 13 frames late.

    Args:
        net: folded (:func:`~vinpaint.nn.fold_batch_norm`), without temporal strides; its weights are copied.
        waits: frames that each of the twelve layers waits for, from the first: 0 to 2, then 0 or 1.

    Raises:
        ValueError: a network that is not folded or strides over frames, or other waits.
    """

    def __init__(self, net: CompletionNet3d, waits: Sequence[int]) -> None:
        if net.temporal_stride:
            raise ValueError("a 3DCN with strides over frames is not the same at every frame")
        layers: list[Any] = list(net.children())  # in the order of the paper's table
        most = [layer.weight.shape[2] // 2 for layer in layers]
        if len(waits) != len(most) or any(
            not 0 <= w <= m for w, m in zip(waits, most, strict=True)
        ):
            raise ValueError(f"waits must be from 0 to {most}, got {list(waits)}")
        self.lookahead = sum(waits)
        """Frames that an output is late."""
        self._layers = [_Layer(layer, wait) for layer, wait in zip(layers, waits, strict=True)]
        self._skips: tuple[deque[Tensor], ...] = (deque(), deque(), deque())

    def push(self, x: Tensor) -> list[Tensor]:
        """The next frame's input (N, 4, 1, h, w); what is finished by it: no or one output (N, 3, 1, h, w)."""
        return self._advance([x], end=False)

    def flush(self) -> list[Tensor]:
        """The outputs that are still due when no more frames come; the next frame begins another clip."""
        outputs = self._advance([], end=True)
        for layer in self._layers:
            layer.forget()
        return outputs

    def _advance(self, x: list[Tensor], *, end: bool) -> list[Tensor]:
        (one, two, three, four, *deep, nine, ten, eleven, twelve) = self._layers
        of_two, of_three, of_four = self._skips
        x2 = two.run(_alone(one.run(_alone(x), end)), end)
        x3 = three.run(_alone(x2), end)
        x4 = four.run(_alone(x3), end)
        for queue, found in ((of_two, x2), (of_three, x3), (of_four, x4)):
            queue.extend(found)
        y = x4
        for layer in deep:
            y = layer.run(_alone(y), end)
        y = nine.run([(frame, of_four.popleft()) for frame in y], end)
        y = ten.run([(frame, of_three.popleft()) for frame in y], end)
        y = eleven.run([(frame, of_two.popleft()) for frame in y], end)
        return twelve.run(_alone(y), end)


Inputs = tuple[Tensor, Tensor | None]
"""One frame of what a layer reads: its input and its skip."""


def _alone(frames: Iterable[Tensor]) -> list[Inputs]:
    return [(frame, None) for frame in frames]


class _Layer:
    """One layer, a frame at a time."""

    def __init__(self, layer: ConvBNReLU | Conv, wait: int) -> None:
        weight = layer.weight.detach()
        assert layer.bias is not None, "checked by fold_batch_norm"
        self._past, self._wait = weight.shape[2] // 2, wait
        self._bias = layer.bias.detach()
        self._transposed = isinstance(layer, ConvBNReLU) and layer.transposed
        self._options: dict[str, Any] = {"relu": isinstance(layer, ConvBNReLU)}
        if isinstance(layer, ConvBNReLU):
            self._options |= layer.geometry
        taps = list(weight.unbind(2))  # a transposed kernel lies the other way round in time
        if self._transposed:
            taps.reverse()
        self._taps = taps[: self._past + 1 + wait]
        self._weight: Tensor | None = None
        self._cache = ops.WeightCache()
        self._window: deque[Inputs] = deque()

    def run(self, inputs: Iterable[Inputs], end: bool) -> list[Tensor]:
        """What ``inputs`` and, at the ``end``, the nothing after them let it finish."""
        outputs = [out for one in inputs for out in self._push(one)]
        if end and self._window:
            nothing = _zeros(self._window[-1])
            outputs += [out for _ in range(self._wait) for out in self._push(nothing)]
        return outputs

    def forget(self) -> None:
        self._window.clear()

    def _push(self, inputs: Inputs) -> list[Tensor]:
        if not self._window:
            self._window.extend([_zeros(inputs)] * self._past)
        self._window.append(inputs)
        if len(self._window) < len(self._taps):
            return []
        frames, skips = zip(*self._window, strict=True)
        x = torch.cat(frames, dim=1)
        skip = None if skips[0] is None else torch.cat(skips, dim=1)
        if self._weight is None:
            self._weight = self._flattened(frames[0].shape[1])
        self._window.popleft()
        out = ops.conv_bias_relu(
            x, self._weight, self._bias, skip=skip, cache=self._cache, **self._options
        )
        return [out]

    def _flattened(self, channels: int) -> Tensor:
        """The weight for the input's ``channels`` of all frames, then the skip's of all frames."""
        axis = 0 if self._transposed else 1
        first = [tap.narrow(axis, 0, channels) for tap in self._taps]
        rest = self._taps[0].shape[axis] - channels
        second = [tap.narrow(axis, channels, rest) for tap in self._taps] if rest else []
        return torch.cat(first + second, dim=axis).unsqueeze(2).contiguous()


def _zeros(inputs: Inputs) -> Inputs:
    x, skip = inputs
    return torch.zeros_like(x), None if skip is None else torch.zeros_like(skip)
