# SPDX-License-Identifier: Apache-2.0
"""Samples a second: from memory-mapped shots to tensors, alone and with workers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from harness import ROUNDS, SMOKE
from torch.utils.data import DataLoader

from vinpaint.training.augment import AugmentConfig
from vinpaint.training.data import ClipDataset, DataConfig

SHOTS, LENGTH, SHORT_SIDE = (4, 20, 48) if SMOKE else (200, 60, 128)
SAMPLES = 4 if SMOKE else 64
BATCH = 4
CLIPS = ((8, 32),) if SMOKE else ((16, 96), (32, 128))
"""Frames and side of a sample."""

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many shots as a small data set has, of noise: their content does not matter."""
    folder = tmp_path_factory.mktemp("shots")
    rng = np.random.default_rng(0)
    for number in range(SHOTS):
        size = (LENGTH, SHORT_SIDE, SHORT_SIDE * 16 // 9, 3)
        np.save(folder / f"{number}.npy", rng.integers(0, 256, size, dtype=np.uint8))
    return folder


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def _data(shots: Path, frames: int, size: int, *, augment: bool = True) -> ClipDataset:
    config = DataConfig(
        cache=str(shots), validation_share=0, augment=AugmentConfig(enabled=augment)
    )
    return ClipDataset(config, frames=frames, size=size, stop=SAMPLES)


def _draw(data: ClipDataset) -> None:
    for index in data.indices:
        data[index]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("frames", "size"), CLIPS)
def test_data_set(benchmark, versus, shots: Path, frames: int, size: int) -> None:
    """One thread; against samples without augmentation, and against copying their bytes."""
    benchmark.group = f"samples of {frames} frames of {size} x {size}"
    data, plain = (_data(shots, frames, size, augment=augment) for augment in (True, False))
    window = np.load(data.shots[0].path)[:frames, :size, :size]
    assert data[0][0].shape == plain[0][0].shape == (3, frames, size, size)
    peers = {
        "plain_sampling": lambda: _draw(plain),
        "copying_bytes": lambda: [window.copy() for _ in data.indices],
    }
    versus(lambda: _draw(data), peers)
    ours = benchmark.stats.stats.median
    benchmark.extra_info["samples_a_second"] = round(SAMPLES / ours, 1)
    benchmark.extra_info["ms_a_sample"] = round(1e3 * ours / SAMPLES, 3)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(("frames", "size"), CLIPS)
def test_loader(benchmark, shots: Path, frames: int, size: int, workers: int) -> None:
    """Batches through a DataLoader; its processes have started before the clock does."""
    benchmark.group = f"batches of {BATCH} samples of {frames} frames of {size} x {size}"
    data = _data(shots, frames, size)
    loader = DataLoader(data, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)
    assert sum(len(clips) for clips, _ in loader) == SAMPLES
    benchmark.pedantic(lambda: [None for _ in loader], rounds=ROUNDS, warmup_rounds=1)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["samples_a_second"] = round(SAMPLES / seconds, 1)
    benchmark.extra_info["ms_a_batch"] = round(1e3 * BATCH * seconds / SAMPLES, 2)
