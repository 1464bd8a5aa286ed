# SPDX-License-Identifier: Apache-2.0
"""Both networks in inference on a GPU, bfloat16, from prepared input to completed frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from cuda_harness import DEVICE, assert_near, compiled, graph_of, needs_gpu, quiet, run
from harness import SMOKE
from layers import CLIPS, layers_of
from plain import PlainInpainter
from torch import Tensor

from vinpaint.nn import InpainterConfig, VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import reduce_clip

pytestmark = [needs_gpu, quiet]

SIZES = {"tiny": (2, 32, 32)} if SMOKE else CLIPS


@dataclass
class Networks:
    """The same weights twice, and a call of each on the same clip."""

    ours: Callable[[], Tensor]
    plain: PlainInpainter
    small: Tensor  # (1, 4, F, h, w), channels last
    x: Tensor  # (F, 4, H, W), channels last

    def eager(self) -> Tensor:
        return self.plain(self.small, self.x)


def networks(frames: int, height: int, width: int) -> Networks:
    torch.manual_seed(0)
    model = VideoInpainter(InpainterConfig(composite_guidance=False)).to(DEVICE).eval()
    plain = PlainInpainter(model).to(DEVICE).eval()
    plain.completion.to(torch.bfloat16, memory_format=torch.channels_last_3d)
    plain.comb.to(torch.bfloat16, memory_format=torch.channels_last)
    fold_batch_norm(model).to(torch.bfloat16)
    assert model.completion is not None
    clip = torch.rand(1, 3, frames, height, width, device=DEVICE)
    mask = torch.zeros_like(clip[:, :1])
    mask[..., height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    small = model.network_input(*reduce_clip(clip, mask)).to(torch.bfloat16)
    whole = model.network_input(clip, mask).to(torch.bfloat16)
    completion, comb = model.completion, model.comb
    return Networks(
        ours=lambda: comb(whole, completion(small)),
        plain=plain,
        small=small.contiguous(memory_format=torch.channels_last_3d),
        x=whole[0].transpose(0, 1).contiguous(memory_format=torch.channels_last),
    )


def facts(clip: str) -> dict[str, object]:
    layers = layers_of(*SIZES[clip])
    return {
        "clip": clip,
        "gflop": sum(layer.flops() for layer in layers) / 1e9,
        "live_gflop": sum(layer.flops(layer.live_taps()) for layer in layers) / 1e9,
    }


def check(nets: Networks, theirs: Callable[[], Tensor]) -> None:
    """Both of them against float32; rounding adds up over thirty layers."""
    wide = PlainInpainter(VideoInpainter()).to(DEVICE).eval()
    wide.load_state_dict(nets.plain.state_dict())
    expected = wide(nets.small.float(), nets.x.float())
    assert_near("ours", nets.ours()[0].transpose(0, 1), expected, 0.1)
    assert_near("the peer", theirs(), expected, 0.1)


@pytest.mark.parametrize("clip", SIZES)
@torch.inference_mode()
def test_against_eager(clip: str, benchmark) -> None:
    nets = networks(*SIZES[clip])
    check(nets, nets.eager)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        works = {
            "ours_graph": graph_of(nets.ours),
            "ours_eager": nets.ours,
            "torch_eager": nets.eager,
        }
        run(benchmark, "both networks", works, peer="eager", **facts(clip))


@pytest.mark.parametrize("clip", SIZES)
@torch.no_grad()
def test_against_compile(clip: str, benchmark) -> None:
    """``max-autotune``: the libraries' and Triton's best, fused, replayed as a CUDA graph."""
    nets = networks(*SIZES[clip])
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        peer = compiled(nets.plain, "max-autotune")
        check(nets, lambda: peer(nets.small, nets.x).clone())
        works = {
            "ours_graph": graph_of(nets.ours),
            "torch_compiled": lambda: peer(nets.small, nets.x),
        }
        run(benchmark, "both networks", works, peer="max-autotune", **facts(clip))
