# SPDX-License-Identifier: Apache-2.0
"""One step of joint training on the CPU: ours against plain torch, in one run, losses compared first."""

from __future__ import annotations

import copy

import pytest
import torch
from harness import SMOKE
from plain import PlainInpainter
from torch import Tensor, nn

from vinpaint import ops, reference
from vinpaint.devices import supported_precisions
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.nn.inpainter import reduce_clip

# On fewer frames than a kernel is deep, torch's own bfloat16 gradients read memory nobody wrote.
FRAMES, SIZE = (8, 32) if SMOKE else (16, 96)


class Step:
    """Forward, the masked loss of the completed frames, backward, Adam; in bfloat16 by autocast."""

    def __init__(self, model: nn.Module, forward, loss) -> None:
        self.model, self.forward, self.loss = model, forward, loss
        self.adam = torch.optim.Adam(model.parameters(), lr=1e-4)

    def __call__(self) -> float:
        self.adam.zero_grad()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
            loss = self.loss(self.forward())
            loss.backward()
        self.adam.step()
        return loss.item()

    def bytes_kept_for_backward(self) -> int:
        """Memory of the tensors that forward saves, parameters aside."""
        parameters = {p.data_ptr() for p in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            storage = t.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            return t

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16), hooks:
            loss = self.loss(self.forward())  # keeps the graph alive while its tensors are counted
        assert loss.grad_fn is not None
        return sum(kept.values())


def test_training_step(versus, benchmark) -> None:
    """16 frames of 96 x 96, both networks; the peers are CombCN in conv2d and in conv3d."""
    if "bf16" not in supported_precisions(torch.device("cpu")):
        pytest.skip("this processor has no bf16 arithmetic")
    benchmark.group = f"training step, {FRAMES} frames of {SIZE} x {SIZE}, bf16, CPU"
    torch.manual_seed(0)
    model = VideoInpainter(InpainterConfig(composite_guidance=False)).train()
    frames = torch.rand(1, 3, FRAMES, SIZE, SIZE)
    mask = torch.zeros(1, 1, FRAMES, SIZE, SIZE)
    mask[..., SIZE // 4 : 3 * SIZE // 4, SIZE // 4 : 3 * SIZE // 4] = 1
    small = model.network_input(*reduce_clip(frames, mask))
    x = model.network_input(frames, mask)
    flat = x[0].transpose(0, 1)
    channels_last = {2: torch.channels_last, 3: torch.channels_last_3d}

    def peer(dims: int) -> Step:
        plain = PlainInpainter(copy.deepcopy(model), comb_dims=dims).train()
        plain.completion.to(memory_format=torch.channels_last_3d)
        plain.comb.to(memory_format=channels_last[dims])

        def forward() -> Tensor:
            if dims == 3:
                return plain(small, x)
            return plain(small, flat).transpose(0, 1).unsqueeze(0)

        return Step(plain, forward, lambda y: reference.masked_l1(y.float(), frames, mask))

    peers = {f"plain_conv{dims}d": peer(dims) for dims in (2, 3)}

    def ours_forward() -> Tensor:
        assert model.completion is not None
        return model.comb(x, model.completion(small))

    ours = Step(model, ours_forward, lambda y: ops.masked_l1(y, frames, mask))
    for name, step in {"ours": ours, **peers}.items():
        benchmark.extra_info[f"{name}_saved_mb"] = round(step.bytes_kept_for_backward() / 2**20, 1)
    for steps in range(3):  # a step later the gradients have had their say
        loss = ours()
        for step in peers.values():
            assert abs(step() - loss) < 0.02 * loss, steps
    versus(ours, peers, inference=False)
