# SPDX-License-Identifier: Apache-2.0
"""A joint training step and the loss on a GPU: time, and the memory that a step needs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from cuda_harness import DEVICE, assert_near, compiled, needs_gpu, peak_mib, quiet, run
from harness import SMOKE
from plain import PlainInpainter
from torch import Tensor, nn

from vinpaint import ops, reference
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.nn.inpainter import reduce_clip
from vinpaint.training import LossConfig, StageConfig
from vinpaint.training.losses import Objective
from vinpaint.training.networks import Batch, Networks

pytestmark = [needs_gpu, quiet]

FRAMES, SIZE = (2, 32) if SMOKE else (32, 128)


def clip_and_mask() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    clip = torch.rand(1, 3, FRAMES, SIZE, SIZE, device=DEVICE)
    mask = torch.zeros_like(clip[:, :1])
    mask[..., SIZE // 4 : 3 * SIZE // 4, SIZE // 4 : 3 * SIZE // 4] = 1
    return clip, mask


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A whole step: losses, gradients, Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=DEVICE.type == "cuda")

    def step() -> Tensor:
        total = loss()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return total

    return step


def test_training_step(benchmark) -> None:
    """Both networks from the clip to Adam, bfloat16 autocast; the peer is plain torch, compiled."""
    clip, mask = clip_and_mask()
    model = VideoInpainter(InpainterConfig(composite_guidance=False)).to(DEVICE).train()
    plain = PlainInpainter(model).to(DEVICE).train()
    plain.completion.to(memory_format=torch.channels_last_3d)
    plain.comb.to(memory_format=torch.channels_last)
    networks, objective = Networks(model, StageConfig()), Objective(LossConfig(), DEVICE)
    every_frame = torch.arange(FRAMES, device=DEVICE)
    batch = Batch(clip, mask, clip)

    def our_loss() -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            return objective(networks(batch, every_frame))[0]

    def plain_forward(clip: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            small, small_mask = reduce_clip(clip, mask)
            coarse = plain.complete(model.network_input(small, small_mask))
            x = model.network_input(clip, mask)[0].transpose(0, 1)
            completed = plain.restore(x, coarse).transpose(0, 1).unsqueeze(0)
        loss3d = reference.masked_l1(coarse, small, small_mask)
        return 255 * (loss3d + reference.masked_l1(completed, clip, mask, per_frame=True))

    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        # Statistics are updated by every step: compare on copies of what is not trained yet.
        before = copy.deepcopy(plain.state_dict())
        assert_near("our loss", our_loss().detach(), plain_forward(clip, mask).detach(), 0.05)
        plain.load_state_dict(before)
        forward = compiled(plain_forward)
        steps = {
            "ours": stepper(model, our_loss),
            "torch_compiled": stepper(plain, lambda: forward(clip, mask)),
        }
        memory = {f"{name}_mib": peak_mib(step) for name, step in steps.items()}
        run(benchmark, "joint training step", steps, clip=f"{FRAMES} x {SIZE} x {SIZE}", **memory)


def test_masked_l1(benchmark) -> None:
    """The loss inside the hole and its gradient, float32."""
    target, mask = clip_and_mask()
    pred = torch.rand_like(target).requires_grad_()

    def work(function: Callable[..., Tensor]) -> Callable[[], Tensor]:
        return lambda: torch.autograd.grad(function(pred, target, mask), pred)[0]

    works = {"ours": work(ops.masked_l1), "torch_eager": work(reference.masked_l1)}
    assert_near("the gradient", works["ours"](), works["torch_eager"](), 1e-4)
    clip = f"{FRAMES} x {SIZE} x {SIZE}"
    run(benchmark, "masked_l1, forward and backward", works, clip=clip)
