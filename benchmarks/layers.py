# SPDX-License-Identifier: Apache-2.0
"""Every layer of both networks as the networks run it: read off the modules, with its work counted.

Nothing is computed for it: the networks run on torch's meta device, which has shapes and no memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.nn.layers import Conv, ConvBNReLU

CLIPS = {"128x128": (32, 128, 128), "432x240": (32, 240, 432)}
"""The paper's clip and DAVIS's, as frames, height, width."""

Three = tuple[int, int, int]


@dataclass(frozen=True)
class Layer:
    """One call of a convolution operator; sizes are (frames, height, width)."""

    name: str
    x_channels: int
    skip_channels: int
    out_channels: int
    size: Three
    out_size: Three
    kernel: Three
    stride: Three
    dilation: Three
    transposed: bool
    relu: bool
    residual: bool
    batch: int = 1

    @property
    def in_channels(self) -> int:
        return self.x_channels + self.skip_channels

    @property
    def padding(self) -> Three:
        """As the operators imply it."""
        triples = zip(self.kernel, self.stride, self.dilation, strict=True)
        f, h, w = ((k - s if self.transposed else d * (k - 1)) // 2 for k, s, d in triples)
        return f, h, w

    @property
    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "dilation": self.dilation, "transposed": self.transposed}

    def taps(self) -> int:
        """(output, tap) pairs with those that fall on padding, for one channel pair and one clip."""
        # A transposed convolution spreads every input over all taps: as many pairs as inputs x taps.
        return prod(self.size if self.transposed else self.out_size) * prod(self.kernel)

    def live_taps(self) -> int:
        """Those of :meth:`taps` that touch data: the least any algorithm of direct sums computes."""
        return prod(self._live_along(axis) for axis in range(3))

    def _live_along(self, axis: int) -> int:
        # `short` is the strided side of the convolution: its output, or a transposed one's input.
        short, long = self.out_size[axis], self.size[axis]
        if self.transposed:
            short, long = long, short
        positions = range(0, short * self.stride[axis], self.stride[axis])
        offsets = [k * self.dilation[axis] - self.padding[axis] for k in range(self.kernel[axis])]
        return sum(0 <= p + offset < long for p in positions for offset in offsets)

    def flops(self, taps: int | None = None) -> int:
        """Two for each multiplication and addition; nominal, or of so many taps."""
        pairs = self.taps() if taps is None else taps
        return 2 * self.batch * pairs * self.in_channels * self.out_channels

    def bytes(self, itemsize: int = 2) -> int:
        """Each tensor read or written once: inputs, weight, residual, output."""
        inputs = self.batch * self.in_channels * prod(self.size)
        outputs = self.batch * self.out_channels * prod(self.out_size)
        weight = self.in_channels * self.out_channels * prod(self.kernel)
        return itemsize * (inputs + weight + outputs * (2 if self.residual else 1))

    @property
    def goal(self) -> float:
        """How many times faster than torch it is to be: more where dilation leaves taps to skip."""
        skips = max(self.dilation) >= 8 and self.live_taps() < 0.7 * self.taps()
        return 2.0 if skips else 1.5

    def unfused_bytes(self, itemsize: int = 2) -> int:
        """What separate operators move besides :meth:`bytes`: concatenation, ReLU and addition."""
        outputs = self.batch * self.out_channels * prod(self.out_size)
        concatenation = 2 * self.batch * self.in_channels * prod(self.size)
        return itemsize * (
            (concatenation if self.skip_channels else 0)
            + (2 * outputs if self.relu else 0)
            + (2 * outputs if self.residual else 0)
        )


def layers_of(frames: int, height: int, width: int) -> list[Layer]:
    """The layers of 3DCN and CombCN for one clip, in the order of their calls."""
    with torch.device("meta"):
        model = VideoInpainter(InpainterConfig()).eval()
        found: list[Layer] = []
        hooks = [
            module.register_forward_hook(_recorder(f"{net} {name}", found), with_kwargs=True)
            for net, child in (("3DCN", model.completion), ("CombCN", model.comb))
            if child is not None
            for name, module in child.named_children()
        ]
        with torch.inference_mode():
            clip = torch.empty(1, 4, frames, height, width)
            model(clip[:, :3], clip[:, 3:])
        for hook in hooks:
            hook.remove()
    return found


def _recorder(name: str, found: list[Layer]) -> Any:
    def record(
        module: ConvBNReLU | Conv, arguments: tuple[Tensor], options: dict[str, Tensor], out: Tensor
    ) -> None:
        (x,) = arguments
        skip = options.get("skip")
        found.append(
            Layer(
                name,
                x.shape[1],
                0 if skip is None else skip.shape[1],
                out.shape[1],
                tuple(x.shape[2:]),
                tuple(out.shape[2:]),
                tuple(module.weight.shape[2:]),
                getattr(module, "stride", (1, 1, 1)),
                getattr(module, "dilation", (1, 1, 1)),
                getattr(module, "transposed", False),
                isinstance(module, ConvBNReLU),
                options.get("residual") is not None,
                x.shape[0],
            )
        )

    return record


@dataclass
class LayerInputs:
    """Random tensors for one layer, channels last."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    skip: Tensor | None
    residual: Tensor | None


def random_inputs(layer: Layer, dtype: torch.dtype, device: torch.device) -> LayerInputs:
    def clip(channels: int, size: Three) -> Tensor | None:
        if not channels:
            return None
        t = torch.randn(layer.batch, *size, channels, device=device, dtype=dtype)
        return t.permute(0, 4, 1, 2, 3)

    pair = (layer.in_channels, layer.out_channels)
    fan = layer.in_channels * prod(layer.kernel) / prod(layer.stride if layer.transposed else [1])
    weight = torch.randn(
        *(pair if layer.transposed else pair[::-1]), *layer.kernel, device=device, dtype=dtype
    )
    x = clip(layer.x_channels, layer.size)
    assert x is not None
    return LayerInputs(
        x=x,
        weight=(weight * fan**-0.5).contiguous(memory_format=torch.channels_last_3d),
        bias=torch.randn(layer.out_channels, device=device, dtype=dtype),
        skip=clip(layer.skip_channels, layer.size),
        residual=clip(layer.out_channels if layer.residual else 0, layer.out_size),
    )


class PlainTorchLayer(nn.Module):
    """The layer as one would write it in torch, batch norm folded: cat, convolution, ReLU, add.

    ``dims`` is 3, or 2 with the frames as a batch. Inputs are converted to that form beforehand, as a
    network written so would have them.
    """

    def __init__(self, layer: Layer, inputs: LayerInputs, dims: int) -> None:
        super().__init__()
        self.layer, self.dims = layer, dims
        self.inputs = [inputs.x] if inputs.skip is None else [inputs.x, inputs.skip]
        self.inputs = [self._form(t) for t in self.inputs]
        self.residual = None if inputs.residual is None else self._form(inputs.residual)
        weight = inputs.weight if dims == 3 else inputs.weight.squeeze(2)
        self.weight, self.bias = weight.contiguous(memory_format=self._last()), inputs.bias
        from_axis = 3 - dims
        self.stride, self.padding = layer.stride[from_axis:], layer.padding[from_axis:]
        self.dilation = layer.dilation[from_axis:]
        name = f"conv_transpose{dims}d" if layer.transposed else f"conv{dims}d"
        self.convolve = getattr(F, name)

    def _last(self) -> torch.memory_format:
        return torch.channels_last_3d if self.dims == 3 else torch.channels_last

    def _form(self, t: Tensor) -> Tensor:
        if self.dims == 2:
            t = t.transpose(1, 2).flatten(0, 1)
        return t.contiguous(memory_format=self._last())

    def forward(self) -> Tensor:
        x = self.inputs[0] if len(self.inputs) == 1 else torch.cat(self.inputs, 1)
        if self.layer.transposed:
            y = self.convolve(x, self.weight, self.bias, self.stride, self.padding)
        else:
            y = self.convolve(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        if self.layer.relu:
            y = F.relu(y)
        return y if self.residual is None else y + self.residual

    def clip(self) -> Tensor:
        """The result as (N, C, F, H, W)."""
        y = self()
        if self.dims == 2:
            y = y.unflatten(0, (self.layer.batch, -1)).transpose(1, 2)
        return y


def dims_of(layer: Layer) -> Iterable[int]:
    """The forms in which torch can compute the layer: 2-D too where the kernel has no depth."""
    return (2, 3) if layer.kernel[0] == 1 and layer.stride[0] == 1 else (3,)
