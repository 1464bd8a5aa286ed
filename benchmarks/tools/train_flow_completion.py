# SPDX-License-Identifier: Apache-2.0
"""Trains the network that completes optical flow inside a hole: what vinpaint/assets/weights/flow-completion holds.

    python benchmarks/tools/train_flow_completion.py VIDEOS --output run --minutes 60

Truth is the DIS flow of whole frames; holes are drawn over it. What the network learns is the flow in the hole and how far
off it will be: the loss is the negative log-likelihood of a Laplace distribution, with the plain distance beside it. Runs on
the CPU. Stretches of frames are decoded once, into OUTPUT/flows.npz.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from vinpaint.errors import InputError
from vinpaint.propagation.completion import (
    NETWORK,
    OFFSETS,
    FlowCompletionNet,
    load_network,
    network_input,
)
from vinpaint.propagation.flow import dis_flow
from vinpaint.propagation.grid import reduced
from vinpaint.propagation.motion import fit_motion, motion_flow
from vinpaint.training.holes import HoleConfig, random_hole
from vinpaint.video.footage import VIDEO_SUFFIXES
from vinpaint.video.images import EXTENSIONS, eight_bit
from vinpaint.video.reader import open_clip
from vinpaint.video.shots import find_cuts

SIZE = (432, 240)
"""Width and height that clips are brought to."""

STRETCH = 17
"""Frames of a stretch."""

STRETCHES = 4
"""Of a clip, spread over its beginning."""

BEGINNING = 400
"""Frames of a clip that are looked at."""

STILL = 0.03
"""Pixels of mean flow below which a stretch has nothing to teach."""

HOLES = HoleConfig(
    shares={"box": 0.35, "moving_box": 0.1, "free_form": 0.15, "object": 0.4},
    side=(0.15, 0.5),
    object=(0.2, 0.8),
    stroke=(0.05, 0.2),
    area=(0.005, 0.35),
)

SPOILT_CELLS = (2, 3)
"""Cells around a hole whose flow is taken away with it."""

DISTANCE_SHARE = 0.3
"""Of the plain distance in the loss."""


@dataclass(frozen=True)
class Stretches:
    """Flow and frames on the grid.

    Attributes:
        flow: (N, 16, 2, h, w, 2) float16: of each pair of frames, there and back.
        gray: (N, 17, h, w) uint8.
    """

    flow: NDArray[np.float16]
    gray: NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "videos", type=Path, help="a folder of videos and folders of frames, at any depth"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--init", type=Path, help="a model.safetensors to go on from")
    parser.add_argument("--leave-out", nargs="*", default=[], help="names of clips to be judged on")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3, help="the learning rate at first")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    network = load_network(args.init) if args.init else FlowCompletionNet()
    stretches = decoded(args.videos, set(args.leave_out), args.output / "flows.npz")
    train(network, stretches, args)


def decoded(videos: Path, leave_out: set[str], cache: Path) -> Stretches:
    """The stretches of all clips, from the cache if it is there and of the same clips."""
    clips = [clip for clip in find_clips(videos) if clip.stem not in leave_out]
    names = np.array([str(clip.relative_to(videos)) for clip in clips])
    if cache.exists():
        arrays = np.load(cache)
        if not np.array_equal(arrays["clips"], names):
            raise InputError(f"{cache} is of other clips; expected another --output, or none")
        return Stretches(arrays["flow"], arrays["gray"])
    flow, gray = [], []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for found in pool.map(decode, clips):
            for one, other in found:
                flow.append(one)
                gray.append(other)
    if not flow:
        raise InputError(f"{videos}: no clip with motion in {STRETCH} frames without a cut")
    partial = cache.with_suffix(".partial.npz")
    np.savez(partial, clips=names, flow=np.stack(flow), gray=np.stack(gray))
    partial.replace(cache)
    return Stretches(np.stack(flow), np.stack(gray))


def find_clips(videos: Path) -> list[Path]:
    """Videos, and folders with enough pictures."""
    return [
        path
        for path in sorted(videos.rglob("*"))
        if path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and _pictures(path) >= STRETCH)
    ]


def _pictures(folder: Path) -> int:
    return sum(path.suffix.lower() in EXTENSIONS for path in folder.iterdir())


def decode(path: Path) -> list[tuple[NDArray[np.float16], NDArray[np.uint8]]]:
    """The stretches of one clip that move; none of one that cannot be read."""
    grays: list[NDArray[np.uint8]] = []
    small = []
    try:
        for frame in open_clip(path, argument="videos").frames():
            picture = cv2.resize(eight_bit(frame.rgb), SIZE, interpolation=cv2.INTER_AREA)
            grays.append(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8))
            small.append(np.asarray(cv2.resize(picture, (256, 144)), np.uint8))
            if len(grays) == BEGINNING:
                break
    except ValueError as error:
        print(f"left out: {path}: {error}", flush=True)
        return []
    bounds = [0, *find_cuts(small), len(grays)]
    starts = [s for a, b in pairwise(bounds) for s in range(a, b - STRETCH + 1, STRETCH)]
    if len(starts) > STRETCHES:
        chosen = np.linspace(0, len(starts) - 1, STRETCHES).round().astype(int)
        starts = [starts[i] for i in chosen]
    found = []
    for start in starts:
        pictures = grays[start : start + STRETCH]
        ways = [(dis_flow(a, b), dis_flow(b, a)) for a, b in pairwise(pictures)]
        flow = np.stack([np.stack([reduced(way) for way in pair]) for pair in ways])
        if np.abs(flow).mean() >= STILL:
            gray = np.stack([reduced(picture) for picture in pictures])
            found.append((flow.astype(np.float16), gray.round().astype(np.uint8)))
    return found


Sample = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Samples:
    """Random pairs of frames with holes; the same for the same seed."""

    def __init__(self, stretches: Stretches, seed: int) -> None:
        self._flow, self._gray = stretches.flow, stretches.gray
        self._rng = np.random.default_rng(seed)
        self._cameras = np.stack([[_cameras(pair) for pair in flow] for flow in self._flow])
        # What moves, above all in other ways than the camera, is seen more often.
        height, width = self._flow.shape[3:5]
        lengths = np.zeros(len(self._flow))
        for n, flow in enumerate(self._flow):
            for pair in (3, 12):
                there = flow[pair, 0].astype(np.float32)
                camera = motion_flow(self._cameras[n, pair, 0], height, width)
                lengths[n] += np.abs(there - camera).mean() / 2 + 0.15 * np.abs(there).mean() / 2
        shares = np.clip(lengths, 0.08, 1.2)
        self._shares = shares / shares.sum()

    def batch(self, size: int) -> Sample:
        """Residuals, unknown, gray, hole as ``network_input`` wants them, and the scale (N, 1, 1, 1) of the flow."""
        samples = [self._sample() for _ in range(size)]
        scale = torch.tensor([sample[4] for sample in samples]).view(-1, 1, 1, 1)
        planes = [np.stack([sample[i] for sample in samples]) for i in range(4)]
        if self._rng.random() < 0.7:  # regions of videos are smaller than frames
            planes = self._cropped(planes)
        residual, unknown, gray, hole = (torch.from_numpy(np.ascontiguousarray(p)) for p in planes)
        return residual, unknown, gray, hole, scale.float()

    def _sample(self) -> tuple[NDArray[np.float32], ...]:
        rng = self._rng
        n = rng.choice(len(self._flow), p=self._shares)
        pairs, height, width = self._flow.shape[1], *self._flow.shape[3:5]
        order = slice(None, None, -1 if rng.random() < 0.5 else 1)  # time runs either way
        way = 0 if order.step > 0 else 1
        flow, cameras = self._flow[n, :, way][order], self._cameras[n, :, way][order]
        gray = self._gray[n][order]
        holes = random_hole(rng, pairs + 1, height, width, HOLES)
        radius = int(rng.integers(SPOILT_CELLS[0], SPOILT_CELLS[1] + 1))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        spoilt = np.stack([cv2.dilate(hole.astype(np.uint8), disc) for hole in holes])
        t = int(rng.integers(pairs))
        residual = np.zeros((len(OFFSETS), 2, height, width), np.float32)
        unknown = np.ones((len(OFFSETS), 1, height, width), np.float32)
        for i, offset in enumerate(OFFSETS):
            if 0 <= t + offset < pairs:
                camera = motion_flow(cameras[t + offset], height, width)
                residual[i] = np.moveaxis(flow[t + offset].astype(np.float32) - camera, -1, 0)
                unknown[i, 0] = np.maximum(spoilt[t + offset], spoilt[t + offset + 1])
        scale = np.float32(np.exp(rng.uniform(-0.7, 0.7)))
        planes = [residual * scale, unknown, gray[t].astype(np.float32)[None] / 255]
        planes.append(holes[t].astype(np.float32)[None])
        for axis, component, chance in ((-1, 0, 0.5), (-2, 1, 0.3)):
            if rng.random() < chance:
                planes = [np.flip(plane, axis) for plane in planes]
                planes[0] = planes[0].copy()
                planes[0][:, component] *= -1
        return (*planes, scale)

    def _cropped(self, planes: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """The same size for all, around each hole."""
        rng, (height, width) = self._rng, planes[0].shape[-2:]
        rows = min(4 * int(rng.integers(8, 16)), height)
        columns = min(4 * int(rng.integers(9, 28)), width)
        crops: list[list[NDArray[np.float32]]] = [[] for _ in planes]
        for sample in zip(*planes, strict=True):
            y, x = np.nonzero(sample[3][0])
            middle = (y.mean(), x.mean()) if len(y) else (height / 2, width / 2)
            top = int(np.clip(middle[0] - rows / 2 + rng.integers(-4, 5), 0, height - rows))
            left = int(np.clip(middle[1] - columns / 2 + rng.integers(-6, 7), 0, width - columns))
            for kept, plane in zip(crops, sample, strict=True):
                kept.append(plane[..., top : top + rows, left : left + columns])
        return [np.stack(kept) for kept in crops]


def _cameras(pair: NDArray[np.float16]) -> NDArray[np.float64]:
    known = np.ones(pair.shape[1:3], bool)
    return np.stack([fit_motion(way.astype(np.float32), known) for way in pair])


def loss_of(network: nn.Module, sample: Sample) -> tuple[Tensor, Tensor]:
    """The loss; and the mean distance in pixels, at most 5, of the network's flow and of the harmonic fill."""
    residual, unknown, gray, hole, scale = sample
    centre = OFFSETS.index(0)
    x, base, unit = network_input(residual, unknown, gray, hole)
    added, log_error = network(x)
    wanted, where = residual[:, centre], unknown[:, centre]
    miss = (base + added * unit - wanted) / unit
    distance = (miss.square().sum(1, keepdim=True) + 1e-4).sqrt()
    likelihood = distance * torch.exp(-log_error) + 2 * log_error
    loss = ((likelihood + DISTANCE_SHARE * distance.clamp_max(20)) * where).sum() / where.sum()
    with torch.no_grad():
        off = [
            (((flow - wanted).norm(dim=1, keepdim=True) / scale).clamp_max(5) * where).sum()
            / where.sum()
            for flow in (base + added * unit, base)
        ]
    return loss, torch.stack(off)


def train(network: FlowCompletionNet, stretches: Stretches, args: argparse.Namespace) -> None:
    """Until the time is up; the averaged weights are written every hundred steps."""
    samples = Samples(stretches, args.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=1e-4)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    started, seen = time.monotonic(), []
    for step, share in _steps(started, 60 * args.minutes):
        for group in optimiser.param_groups:
            warm = min(1, step / 100 + 0.01)
            group["lr"] = args.rate * warm * 0.5 * (1 + math.cos(math.pi * share))
        loss, off = loss_of(network, samples.batch(args.batch))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        decay = min(0.998, step / (step + 20))
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        seen.append([loss.item(), *off.tolist()])
        if step % 100 == 0:
            mean, network_off, base_off = np.mean(seen, axis=0)
            print(
                f"step {step}, {time.monotonic() - started:.0f} s: loss {mean:.3f}, flow off by "
                f"{network_off:.3f} pixels, a harmonic fill's by {base_off:.3f}",
                flush=True,
            )
            seen = []
            save(average, args.output)
    save(average, args.output)


def _steps(started: float, seconds: float) -> Iterator[tuple[int, float]]:
    step = 0
    while (share := (time.monotonic() - started) / seconds) < 1:
        step += 1
        yield step, share


def save(state: dict[str, Tensor], folder: Path) -> None:
    """Kernels in half precision, all else in float32."""
    tensors = {
        name: (value.half() if value.dim() > 1 else value.float()).contiguous()
        for name, value in state.items()
    }
    partial = folder / f"{NETWORK.name}.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / NETWORK.name)


if __name__ == "__main__":
    main()
