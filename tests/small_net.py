# SPDX-License-Identifier: Apache-2.0
"""A small network of our layers, and its training in one of two processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from vinpaint import ops
from vinpaint.nn.layers import Conv, ConvBNReLU


class Net(nn.Module):
    """A strided, a transposed and a linear layer, a skip and a residual, and the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.down = ConvBNReLU(3, 8, (3, 3, 3), stride=(1, 2, 2))
        self.dilated = ConvBNReLU(8, 8, (1, 3, 3), dilation=(1, 2, 2))
        self.up = ConvBNReLU(8 + 8, 4, (1, 4, 4), stride=(1, 2, 2), transposed=True)
        self.last = Conv(4, 3, (1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        return self.last(self.up(self.dilated(skip, residual=skip), skip=skip))


def loss_of(net: nn.Module, x: Tensor) -> Tensor:
    return ops.masked_l1(net(x), x.detach(), torch.ones_like(x[:, :1]))


def train_a_rank(folder: str, rank: int) -> None:
    """One step of process ``rank`` of two, each on its clip; the gradients go to a file."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    state, clips = torch.load(Path(folder) / "start.pt", weights_only=True)
    net = Net().eval()  # the statistics of a batch would differ between the processes
    net.load_state_dict(state)
    wrapped = nn.parallel.DistributedDataParallel(net)
    loss_of(wrapped, clips[rank : rank + 1]).backward()
    torch.save([p.grad for p in net.parameters()], Path(folder) / f"gradients{rank}.pt")
    torch.distributed.barrier()  # a process that leaves early may keep the other from ending
    del wrapped
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train_a_rank(sys.argv[1], int(sys.argv[2]))
