# SPDX-License-Identifier: Apache-2.0
"""The whole training loop on the CPU against a plain one in torch: clips a second, and the wait for data."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from harness import ROUNDS, SMOKE
from plain import PlainInpainter
from torch.utils.data import DataLoader

from vinpaint import reference
from vinpaint.devices import supported_precisions
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.nn.inpainter import reduce_clip
from vinpaint.training import ClipDataset, DataConfig, RunConfig, StageConfig, TrainConfig, train
from vinpaint.training.monitor import read_log

FRAMES, SIZE, STEPS = (8, 32, 3) if SMOKE else (16, 96, 8)
WARM = 1 if SMOKE else 2
"""First steps of a run, in which workers start and memory is found; not timed."""

MOST_WAITING = 0.05
"""Share of a step that may be spent waiting for data."""

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def _config(folder: Path) -> TrainConfig:
    (folder / "shots").mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (2 * FRAMES, 72, 128, 3), dtype=np.uint8)
        shot = np.repeat(np.repeat(pixels, 2, 1), 2, 2) if SIZE > 72 else pixels
        np.save(folder / "shots" / f"{number}.npy", shot)
    options = RunConfig(
        output=str(folder / "run"), mean="model", ema=0.0, workers=1, validate_every=0
    )
    return TrainConfig(
        data=DataConfig(cache=str(folder / "shots"), validation_share=0.0),
        model=InpainterConfig(composite_guidance=False),
        run=options,
        stages=(StageConfig(networks="joint", steps=STEPS, frames=FRAMES, size=SIZE),),
    )


def _ours(config: TrainConfig) -> list[dict]:
    """Rows of the log of a run from its beginning."""
    shutil.rmtree(config.run.output, ignore_errors=True)
    train(config)
    return read_log(Path(config.run.output) / "log.jsonl")


def _plain(config: TrainConfig) -> list[dict]:
    """The same steps as one would write them in torch, with the same samples and first weights."""
    torch.manual_seed(config.run.seed)
    model = VideoInpainter(config.model)
    networks = PlainInpainter(model).train()
    networks.completion.to(memory_format=torch.channels_last_3d)
    networks.comb.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(networks.parameters(), lr=config.stages[0].learning_rate)
    data = ClipDataset(config.data, frames=FRAMES, size=SIZE, stop=STEPS, seed=config.run.seed)
    rows = []
    clips = iter(DataLoader(data, num_workers=config.run.workers, shuffle=False))
    for _ in range(STEPS):
        started = time.monotonic()
        frames, mask = (clip.float() for clip in next(clips))
        frames = frames / 255
        small, small_mask = reduce_clip(frames, mask)
        x = model.network_input(frames, mask)[0].transpose(0, 1)
        adam.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            coarse = networks.complete(model.network_input(small, small_mask))
            completed = networks.restore(x, coarse).transpose(0, 1).unsqueeze(0)
        loss = reference.masked_l1(coarse.float(), small, small_mask)
        loss = loss + reference.masked_l1(completed.float(), frames, mask, per_frame=True)
        loss.backward()
        adam.step()
        rows.append(
            {"loss": 255 * loss.item(), "clips_per_second": 1 / (time.monotonic() - started)}
        )
    return rows


def _rate(runs: list[list[dict]]) -> float:
    return median(row["clips_per_second"] for rows in runs for row in rows[WARM:])


def test_training_loop(benchmark, tmp_path: Path) -> None:
    """Joint training of both networks, one clip a step, bf16: from files of shots to logged steps."""
    if "bf16" not in supported_precisions(torch.device("cpu")):
        pytest.skip("this processor has no bf16 arithmetic")
    benchmark.group = f"training loop, {FRAMES} frames of {SIZE} x {SIZE}, bf16, CPU"
    config = _config(tmp_path)
    ours, plain = [], []

    def one_plain_run() -> None:
        plain.append(_plain(config))

    benchmark.pedantic(lambda: ours.append(_ours(config)), setup=one_plain_run, rounds=ROUNDS)
    # The first step has the same weights and samples; after it rounding goes its own way.
    assert abs(ours[0][0]["loss"] - plain[0][0]["loss"]) < 0.02 * plain[0][0]["loss"]
    waited = median(row["data_wait"] for rows in ours for row in rows[WARM:])
    assert SMOKE or waited < MOST_WAITING
    benchmark.extra_info.update(
        clips_a_second=round(_rate(ours), 4),
        plain_clips_a_second=round(_rate(plain), 4),
        times_plain=round(_rate(ours) / _rate(plain), 3),
        data_wait=round(waited, 4),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
    )
