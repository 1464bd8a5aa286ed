# SPDX-License-Identifier: Apache-2.0
"""Trains the network that follows an object: what vinpaint/assets/follow holds.

    python benchmarks/tools/train_follow.py VIDEOS --output run --minutes 60 --still street hallway

Clips are composed of the videos, see follow_clips.py, once, into OUTPUT/clips.npz, with their optical flow.
The network learns on its own path: what it found in a frame is what it starts the next one from. Runs
on the CPU; on a busy one it is fastest with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from follow_clips import compose, read_stock
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from train_flow_completion import find_clips

from vinpaint.masking.follow_cues import Colors, bins_of, moved, moves_along
from vinpaint.masking.follow_net import STRIDE, FollowNet, load_network, network_input
from vinpaint.masking.follow_step import RECENT
from vinpaint.propagation.flow import dis_flow

FRAMES, SIDE = 24, 192
"""Of a composed clip."""

CROP = 160
"""Side of what is learnt from, in pixels."""

LEAST_AREA = 150
"""Pixels of the object in a first frame that is worth following."""

LEARNT_BY = 0.5
"""Share of the time after which clips are followed over their whole length; at first two frames long."""


@dataclass(frozen=True)
class Clips:
    """frames (N, F, S, S, 3) uint8, truth (N, F, S, S) bool; forth, back (N, F-1, S, S, 2) float16."""

    frames: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    forth: NDArray[np.float16]
    back: NDArray[np.float16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, help="a folder of videos, at any depth")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cutouts", type=Path, help="a folder of pictures with transparency")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clips", type=int, default=350, help="how many are composed")
    parser.add_argument("--init", type=Path, help="a model.safetensors to go on from")
    parser.add_argument(
        "--still",
        nargs="*",
        default=[],
        help="names of clips whose camera stands still: objects are cut out of them",
    )
    parser.add_argument("--leave-out", nargs="*", default=[], help="names of clips to be judged on")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3, help="the learning rate at first")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    clips = composed(args)
    network = load_network(args.init) if args.init else FollowNet()
    train(network.requires_grad_(True).train(), clips, args)


def composed(args: argparse.Namespace) -> Clips:
    """From the cache if it is there."""
    cache: Path = args.output / "clips.npz"
    if cache.exists():
        arrays = np.load(cache)
        return Clips(*(arrays[name] for name in ("frames", "truth", "forth", "back")))
    names = [path for path in find_clips(args.videos) if path.stem not in args.leave_out]
    stock = read_stock(names, args.cutouts, args.still)
    rng = np.random.default_rng(args.seed)
    made: list[tuple[NDArray, ...]] = []
    while len(made) < args.clips:
        frames, truth = compose(stock, rng, FRAMES, SIDE)
        if not LEAST_AREA < truth[0].sum() < truth[0].size / 2:
            continue
        grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        pairs = list(pairwise(grays))
        forth = np.stack([dis_flow(a, b) for a, b in pairs]).astype(np.float16)
        back = np.stack([dis_flow(b, a) for a, b in pairs]).astype(np.float16)
        made.append((frames, truth, forth, back))
        if len(made) % 50 == 0:
            print(f"{len(made)} clips composed", flush=True)
    clips = Clips(*(np.stack(parts) for parts in zip(*made, strict=True)))
    np.savez(cache, **vars(clips))
    return clips


@dataclass
class Run:
    """A clip that is being followed, augmented, from its first frame on."""

    frames: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    forth: NDArray[np.float32]
    back: NDArray[np.float32]
    painted: NDArray[np.float32]
    at: int = 0
    memory: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.share = self.painted
        bins = bins_of(self.frames[0])
        self.painted_colors, self.recent_colors = (Colors(bins, self.share) for _ in range(2))

    @property
    def over(self) -> bool:
        return self.at == len(self.frames) - 1

    def next_cues(self) -> NDArray[np.float32]:
        """Of the next frame, as :class:`vinpaint.masking.follow_step.Follower` makes them."""
        back, forth = self.back[self.at], self.forth[self.at]
        self.at += 1
        self.bins = bins_of(self.frames[self.at])
        there, trust = moved(self.share, back, forth)
        colors = self.painted_colors.odds(self.bins), self.recent_colors.odds(self.bins)
        along = moves_along(there, back)
        return np.stack([2 * there - 1, trust, *colors, along, np.ones_like(there)])

    def found(self, share: NDArray[np.float32], keys: Tensor) -> None:
        self.share = share
        self.recent_colors.renew(self.bins, share)
        places = F.avg_pool2d(torch.from_numpy(share)[None, None], STRIDE).flatten()
        self.memory = [*self.memory, (keys, places)][-max(RECENT) :]


def draw(clips: Clips, rng: np.random.Generator, longest: int) -> Run:
    """A stretch of some clip, cropped, and perhaps reversed, mirrored and recoloured."""
    while True:
        i = rng.integers(len(clips.frames))
        length = int(rng.integers(2, longest + 1))
        start = int(rng.integers(0, FRAMES - length))
        middle = _middle(clips.truth[i, start if rng.random() < 0.5 else start + length])
        top, left = (int(np.clip(m - CROP / 2 + rng.normal() * 16, 0, SIDE - CROP)) for m in middle)
        window = slice(top, top + CROP), slice(left, left + CROP)
        stretch = slice(start, start + length + 1)
        frames = clips.frames[(i, stretch, *window)]
        truth = clips.truth[(i, stretch, *window)]
        forth, back = (
            flow[(i, slice(start, start + length), *window)].astype(np.float32)
            for flow in (clips.forth, clips.back)
        )
        if rng.random() < 0.5:
            frames, truth, forth, back = frames[::-1], truth[::-1], back[::-1], forth[::-1]
        if rng.random() < 0.5:
            frames, truth = frames[:, :, ::-1], truth[:, :, ::-1]
            forth, back = (flow[:, :, ::-1] * np.float32([-1, 1]) for flow in (forth, back))
        if rng.random() < 0.5:
            frames = _recoloured(frames, rng)
        if truth[0].sum() > LEAST_AREA:
            parts = (np.ascontiguousarray(part) for part in (frames, truth, forth, back))
            return Run(*parts, painted=rough(truth[0], rng).astype(np.float32))


def _middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return (rows.mean(), columns.mean()) if len(rows) else (SIDE / 2, SIDE / 2)


def _recoloured(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    levels = (np.arange(256) / 255)[:, None] ** rng.uniform(0.7, 1.4) * 255
    table = np.clip(levels * rng.uniform(0.7, 1.3, 3), 0, 255).astype(np.uint8)
    order = rng.permutation(3)
    return np.stack([table[frames[..., order[c]], c] for c in range(3)], -1)


def rough(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """As a hand may paint it: here and there too large or too small."""
    if rng.random() < 0.4:
        return mask
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(rng.integers(1, 4)) + 1,) * 2)
    change = cv2.dilate if rng.random() < 0.65 else cv2.erode
    changed = change(mask.astype(np.uint8), brush) > 0
    if rng.random() < 0.5:
        patches = cv2.resize(rng.random((6, 6)).astype(np.float32), mask.shape[::-1])
        changed = np.where(patches > 0.5, changed, mask)
    return changed if changed.sum() > 50 else mask


def follow_one(network: FollowNet, runs: list[Run]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One frame on in every run: log odds, the memory's share, the keys, and the truth."""
    cues = torch.from_numpy(np.stack([run.next_cues() for run in runs]))
    truth = torch.from_numpy(np.stack([run.truth[run.at] for run in runs])).float()
    now = network_input(*(run.frames[run.at] for run in runs))
    first = network_input(*(run.frames[0] for run in runs))
    painted = torch.from_numpy(np.stack([run.painted for run in runs]))[:, None]
    count = len(runs)
    with torch.autocast("cpu", torch.bfloat16):
        features, keys = network.encode(torch.cat([now, first]))
        known = [(keys[count:].flatten(2), F.avg_pool2d(painted, STRIDE).flatten(1))]
        for back in RECENT:
            pairs = [
                run.memory[max(-back, -len(run.memory))]
                if run.memory
                else (known[0][0][i].detach(), known[0][1][i])
                for i, run in enumerate(runs)
            ]
            known.append(tuple(torch.stack(parts) for parts in zip(*pairs, strict=True)))
        remembered, shares = (torch.cat(parts, -1) for parts in zip(*known, strict=True))
        reading = network.read(keys[:count], remembered, shares)
        odds = network(now, cues, features[:count], reading)
    return odds.float(), (reading[:, 0].float() + 1) / 2, keys[:count].float(), truth


def loss_of(odds: Tensor, memory: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy and Dice of what was found, and cross-entropy of what the memory says alone."""
    share = odds.sigmoid()
    both = (share * truth).sum((1, 2))
    dice = 1 - (2 * both + 20) / (share.sum((1, 2)) + truth.sum((1, 2)) + 20)
    places = F.avg_pool2d(truth[:, None], STRIDE)[:, 0]
    alone = F.binary_cross_entropy(memory.clamp(1e-4, 1 - 1e-4), places)
    return 2 * F.binary_cross_entropy_with_logits(odds, truth) + dice.mean() + 0.3 * alone


def overlap(found: Tensor, truth: Tensor) -> float:
    both, either = ((found & truth).sum((1, 2)), (found | truth).sum((1, 2)))
    return float((both / either.clamp(min=1)).mean())


def train(network: FollowNet, clips: Clips, args: argparse.Namespace) -> None:
    """Until the time is up; weights are written every 200 steps."""
    network = network.to(memory_format=torch.channels_last)
    rng = np.random.default_rng(args.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=1e-4)
    started, step, longest = time.monotonic(), 0, 2
    runs = [draw(clips, rng, longest) for _ in range(args.batch)]
    seen: list[tuple[float, float]] = []
    while (elapsed := (time.monotonic() - started) / (60 * args.minutes)) < 1:
        for group in optimiser.param_groups:
            falling = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * elapsed))
            group["lr"] = args.rate * min(1, (step + 1) / 50) * falling
        odds, memory, keys, truth = follow_one(network, runs)
        loss = loss_of(odds, memory, truth)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        shares = odds.detach().sigmoid()
        seen.append((loss.item(), overlap(shares > 0.5, truth > 0.5)))
        longest = FRAMES - 1
        if not args.init:
            longest = int(2 + min(1, elapsed / LEARNT_BY) * (FRAMES - 3))
        for i, run in enumerate(runs):
            run.found(shares[i].numpy().copy(), keys[i].detach().flatten(1))
            if run.over:
                runs[i] = draw(clips, rng, longest)
        if step % 200 == 0:
            mean_loss, mean_overlap = np.mean(seen, axis=0)
            print(
                f"step {step}, {time.monotonic() - started:.0f} s: up to {longest} frames, "
                f"loss {mean_loss:.3f}, IoU {mean_overlap:.3f}",
                flush=True,
            )
            seen = []
            save(network, args.output)
    save(network, args.output)


def save(network: FollowNet, folder: Path) -> None:
    """Kernels in float16, everything else in float32."""
    tensors = {
        name: value.detach().to(torch.float16 if value.dim() > 1 else torch.float32).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
