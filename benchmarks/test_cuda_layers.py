# SPDX-License-Identifier: Apache-2.0
"""Every layer of both networks on a GPU, in inference and bfloat16: ours against cuDNN through torch."""

from __future__ import annotations

import pytest
import torch
from cuda_harness import DEVICE, HAS_GPU, assert_near, needs_gpu, run
from harness import SMOKE
from layers import CLIPS, Layer, PlainTorchLayer, dims_of, layers_of, random_inputs

from vinpaint import ops, reference

pytestmark = needs_gpu

SIZES = {"tiny": (2, 32, 32)} if SMOKE else CLIPS
LAYERS = [(clip, layer) for clip, size in SIZES.items() for layer in layers_of(*size)]


@pytest.mark.parametrize(
    ("clip", "layer"), LAYERS, ids=[f"{clip} {layer.name}" for clip, layer in LAYERS]
)
@torch.inference_mode()
def test_layer(clip: str, layer: Layer, benchmark) -> None:
    torch.manual_seed(0)
    inputs = random_inputs(layer, torch.bfloat16, DEVICE)
    extras = {"skip": inputs.skip, "residual": inputs.residual, "relu": layer.relu}

    def ours() -> torch.Tensor:
        return ops.conv_bias_relu(inputs.x, inputs.weight, inputs.bias, **extras, **layer.options)

    expected = reference.conv_bias_relu(
        *(t.float() for t in (inputs.x, inputs.weight, inputs.bias)),
        skip=None if inputs.skip is None else inputs.skip.float(),
        residual=None if inputs.residual is None else inputs.residual.float(),
        relu=layer.relu,
        **layer.options,
    )
    assert_near("ours", ours(), expected, 1e-2)
    peers = {f"conv{dims}d": PlainTorchLayer(layer, inputs, dims) for dims in dims_of(layer)}
    for name, peer in peers.items():
        assert_near(name, peer.clip(), expected, 1e-2)
    del expected

    benchmark.name = layer.name
    with torch.backends.cudnn.flags(enabled=True, benchmark=HAS_GPU, allow_tf32=True):
        run(
            benchmark,
            f"layers, {clip}",
            {"ours": ours, **peers},
            clip=clip,
            layer=layer.name,
            goal=layer.goal,
            gflop=layer.flops() / 1e9,
            live_gflop=layer.flops(layer.live_taps()) / 1e9,
            mbytes=layer.bytes() / 1e6,
        )
