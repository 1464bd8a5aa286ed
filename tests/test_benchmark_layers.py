# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks count and predict: against sums over everything, on small shapes."""

from __future__ import annotations

import itertools
import os
import shutil

import pytest
import torch
from convolution_cases import CASES, Case
from layers import CLIPS, Layer, PlainTorchLayer, dims_of, layers_of, random_inputs
from predict import BLOCK, CARDS, geometry, predict, tile_width
from tolerances import assert_close

from vinpaint import ops, reference


def layer_of(case: Case) -> Layer:
    n, *size = case.clip
    cx, cs, cout = case.channels
    if case.transposed:
        out = tuple(s * step for s, step in zip(size, case.stride, strict=True))
    else:
        out = tuple(-(-s // step) for s, step in zip(size, case.stride, strict=True))
    return Layer(
        case.name, cx, cs, cout, tuple(size), out, **case.options, kernel=case.kernel,
        relu=True, residual=True, batch=n,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_live_taps_are_those_that_touch_data(case):
    layer = layer_of(case)
    ones = torch.ones(1, 1, *layer.size, dtype=torch.float64)
    kernel = torch.ones(1, 1, *layer.kernel, dtype=torch.float64)
    touched = reference.conv_bias_relu(ones, kernel, relu=False, **layer.options)
    assert touched.shape[2:] == layer.out_size
    assert layer.live_taps() == touched.sum().item()
    assert layer.flops(layer.live_taps()) <= layer.flops()


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="compiles the kernels' geometry"
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_taps_that_a_block_computes(case):
    """The count over patches, against marking each patch that an output of a tap falls into."""
    layer = layer_of(case)
    shape = geometry(layer)
    assert torch.Size(shape.patch).numel() == BLOCK
    phases = layer.stride if layer.transposed else (1, 1, 1)
    live = set()
    for tap in itertools.product(*(range(k) for k in layer.kernel)):
        kernel = torch.zeros(1, 1, *layer.kernel)
        kernel[(0, 0, *tap)] = 1
        ones = torch.ones(1, 1, *layer.size)
        touched = reference.conv_bias_relu(ones, kernel, relu=False, **layer.options)[0, 0]
        for position in touched.nonzero().tolist():
            parts = zip(position, phases, shape.patch, strict=True)
            live.add((tap, *((i // step // patch, i % step) for i, step, patch in parts)))
    # A block also computes a tap if its outermost positions alone would reach over the whole input.
    assert layer.batch * len(live) <= shape.live
    assert shape.live <= layer.batch * len(live) * 1.5
    assert shape.live * BLOCK >= layer.batch * layer.live_taps()


def test_layers_are_read_off_the_networks():
    layers = layers_of(*CLIPS["128x128"])
    assert len(layers) == 12 + 19
    names = {layer.name: layer for layer in layers}
    assert names["CombCN conv10"].dilation == (1, 16, 16)
    assert names["CombCN conv10"].skip_channels == 256
    assert names["CombCN conv2"].residual
    assert not names["CombCN conv17"].relu
    assert names["3DCN deconv9"].out_size == (32, 32, 32)


@pytest.mark.parametrize("layer", layers_of(2, 32, 32), ids=lambda layer: layer.name)
def test_the_peer_computes_the_same_layer(layer):
    inputs = random_inputs(layer, torch.float32, torch.device("cpu"))
    ours = ops.conv_bias_relu(
        inputs.x, inputs.weight, inputs.bias, skip=inputs.skip, residual=inputs.residual,
        relu=layer.relu, **layer.options,
    )  # fmt: skip
    for dims in dims_of(layer):
        assert_close(PlainTorchLayer(layer, inputs, dims).clip(), ours.double(), torch.float32)


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="compiles the kernels' geometry"
)
def test_no_prediction_beats_the_card():
    for layer in layers_of(*CLIPS["128x128"]):
        for card in CARDS.values():
            at_full_rate = predict(layer, card, 1.0)
            assert at_full_rate.total * 1e-6 * card.tflops * 1e12 >= layer.flops(layer.live_taps())
            assert at_full_rate.total * 1e-6 * card.tbytes * 1e12 >= layer.bytes()
    assert [tile_width(c) for c in (3, 8, 32, 48, 128, 256)] == [8, 8, 32, 64, 128, 128]
