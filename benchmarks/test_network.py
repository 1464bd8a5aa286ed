# SPDX-License-Identifier: Apache-2.0
"""Whole-network inference on the CPU: ours against plain torch, in one run, results compared first."""

from __future__ import annotations

import pytest
import torch
from harness import SMOKE
from plain import PlainInpainter

from vinpaint.devices import supported_precisions
from vinpaint.nn import InpainterConfig, VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import reduce_clip

FRAMES, SIZE = (4, 32) if SMOKE else (32, 128)
CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_whole_network(precision, versus, benchmark) -> None:
    """32 frames of 128 x 128, the paper's clip, from prepared input to completed frames."""
    if precision not in supported_precisions(CPU):
        pytest.skip(f"this processor has no {precision} arithmetic")
    benchmark.group = f"whole network, {FRAMES} frames of {SIZE} x {SIZE}, CPU"
    torch.manual_seed(0)
    model = VideoInpainter(InpainterConfig(composite_guidance=False)).eval()
    plain = PlainInpainter(model).eval()
    fold_batch_norm(model)
    frames = torch.rand(1, 3, FRAMES, SIZE, SIZE)
    mask = torch.zeros(1, 1, FRAMES, SIZE, SIZE)
    mask[..., SIZE // 4 : 3 * SIZE // 4, SIZE // 4 : 3 * SIZE // 4] = 1
    small = model.network_input(*reduce_clip(frames, mask)).contiguous()
    x = model.network_input(frames, mask)[0].transpose(0, 1).contiguous()

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model.to(dtype)
    small_last = small.to(dtype, memory_format=torch.channels_last_3d)
    x_last = x.to(dtype, memory_format=torch.channels_last)
    x_ours = x_last.transpose(0, 1).unsqueeze(0)

    def ours() -> torch.Tensor:
        assert model.completion is not None
        return model.comb(x_ours, model.completion(small_last))

    with torch.inference_mode():
        expected = plain(small, x)
        got = ours()[0].transpose(0, 1).float()
        peers = {"plain_fp32_default": lambda: plain(small, x)}
        last = PlainInpainter(VideoInpainter()).eval()
        last.load_state_dict(plain.state_dict())
        last.completion.to(dtype, memory_format=torch.channels_last_3d)
        last.comb.to(dtype, memory_format=torch.channels_last)
        peers[f"plain_{precision}_channels_last"] = lambda: last(small_last, x_last)
        theirs = last(small_last, x_last).float()
    scale = expected.square().mean().sqrt()
    tolerance = 1e-4 if precision == "fp32" else 0.05
    assert (got - expected).square().mean().sqrt() < tolerance * scale
    assert (theirs - expected).square().mean().sqrt() < tolerance * scale
    versus(ours, peers)
