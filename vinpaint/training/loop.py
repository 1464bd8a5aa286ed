# SPDX-License-Identifier: Apache-2.0
"""The training loop: 3DCN alone, then both networks jointly, as the paper has it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vinpaint import ops
from vinpaint.devices import resolve_device
from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.nn.inpainter import pad_to_grid, reduce_clip
from vinpaint.nn.layers import ConvBNReLU
from vinpaint.pretrained import save_pretrained
from vinpaint.training.data import ShotDataset


@dataclass(frozen=True)
class TrainConfig:
    """Options of one training run.

    Attributes:
        data: folder of decoded shots.
        output: folder of the run: ``checkpoint.pt``, ``log.jsonl``, and in the end ``weights``.
        stage: ``"completion"`` trains 3DCN alone, ``"joint"`` both networks together.
        steps: optimiser steps in all; a resumed run goes on to this number.
        decay_steps: the last so many steps lower the learning rate linearly to zero.
        freeze_stats_steps: the last so many steps normalise with the running statistics, so that the
            network meets in training what it will meet in use.
        batch: clips a step.
        frames: frames a clip.
        size: height and width of a clip.
        comb_frames: frames of each clip that CombCN trains on, evenly spread; ``None``: all, as in the
            paper. Neighbouring frames are much alike, so a few of each of more clips teach more.
        learning_rate: Adam's; the paper's is 1e-3.
        comb_weight: weight of CombCN's loss beside 3DCN's; the paper's is 1.
        precision: ``"bf16"`` is autocast.
        device: ``"auto"`` is the first CUDA device if there is one, else the CPU.
        seed: of the weights, the samples and the holes.
        workers: processes that make samples.
        save_every: steps between two checkpoints.
        init: a checkpoint to start from, for example of the stage before.
    """

    data: str
    output: str
    stage: Literal["completion", "joint"] = "joint"
    steps: int = 10_000
    decay_steps: int = 0
    freeze_stats_steps: int = 0
    batch: int = 1
    frames: int = 16
    size: int = 96
    comb_frames: int | None = None
    learning_rate: float = 1e-3
    comb_weight: float = 1.0
    precision: Literal["fp32", "bf16"] = "bf16"
    device: str = "auto"
    seed: int = 0
    workers: int = 1
    save_every: int = 200
    init: str | None = None


def losses(
    model: VideoInpainter, frames: Tensor, mask: Tensor, config: TrainConfig
) -> tuple[Tensor, Tensor | None]:
    """3DCN's and CombCN's loss (``None`` in the completion stage), on the 0..255 scale."""
    frames, mask = pad_to_grid(frames, model.grid), pad_to_grid(mask, model.grid)
    small, small_mask = reduce_clip(frames, mask, model.config.reduction)
    coarse, guidance = model.complete(small, small_mask)
    loss3d = 255 * ops.masked_l1(coarse, small, small_mask)
    if config.stage == "completion":
        return loss3d, None
    if config.comb_frames is not None:
        chosen = torch.linspace(0, frames.shape[2] - 1, config.comb_frames).round().long()
        frames, mask, guidance = (clip[:, :, chosen] for clip in (frames, mask, guidance))
    completed = model.restore(frames, mask, guidance)
    return loss3d, 255 * ops.masked_l1(completed, frames, mask, per_frame=True)


def train(
    config: TrainConfig,
    model_config: InpainterConfig | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> VideoInpainter:
    """Train, or go on training if ``config.output`` holds a checkpoint.

    Args:
        config: what to train, on what, for how long.
        model_config: options of the networks; ``None``: the paper's, with the mean pixel of the data. A
            checkpoint that the run starts from brings its own.
        progress: called with steps done and steps in all.

    Returns:
        The trained model; its weights are in ``config.output`` too, in the folder ``weights``.

    Raises:
        FileNotFoundError: no data, or no such ``init`` checkpoint.
        InputError: the checkpoint in ``output`` was made with other options, or no such device.
    """
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    dataset = ShotDataset(
        config.data,
        frames=config.frames,
        size=config.size,
        length=config.steps * config.batch,
        seed=config.seed,
    )
    checkpoint = output / "checkpoint.pt"
    resumed = _load(checkpoint, device) if checkpoint.exists() else None
    if resumed is not None:
        _check_resumable(config, resumed["config"], checkpoint)
    start = resumed if resumed is not None or config.init is None else _load(config.init, device)
    if start is not None:
        model_config = InpainterConfig(**start["model_config"])
    model = VideoInpainter(model_config or InpainterConfig(mean=dataset.mean())).to(device)
    if start is not None:
        model.load_state_dict(start["model"])
    optimizer = torch.optim.Adam(_parameters(model, config.stage), lr=config.learning_rate)
    step = 0
    if resumed is not None:
        optimizer.load_state_dict(resumed["optimizer"])
        step = resumed["step"]
    samples = range(step * config.batch, config.steps * config.batch)
    loader = DataLoader(
        dataset, batch_size=config.batch, sampler=samples, num_workers=config.workers
    )
    model.train()
    started = time.monotonic()
    with (output / "log.jsonl").open("a") as log:
        for batch in loader:
            frames, mask = (clip.to(device, non_blocking=True) for clip in batch)
            if config.steps - step <= config.freeze_stats_steps:
                _freeze_statistics(model)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * _decay(step, config)
            with torch.autocast(
                frames.device.type, torch.bfloat16, enabled=config.precision == "bf16"
            ):
                loss3d, loss2d = losses(model, frames, mask, config)
            total = loss3d if loss2d is None else loss3d + config.comb_weight * loss2d
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            step += 1
            row = {
                "step": step,
                "l1_3dcn": loss3d.item(),
                "seconds": round(time.monotonic() - started, 2),
            }
            if loss2d is not None:
                row["l1_combcn"] = loss2d.item()
            log.write(json.dumps(row) + "\n")
            log.flush()
            if step % config.save_every == 0 or step == config.steps:
                _save(checkpoint, model, optimizer, step, config)
            if progress is not None:
                progress(step, config.steps)
    save_pretrained(model, output / "weights")
    return model


MAY_CHANGE = (
    "data",
    "output",
    "steps",
    "decay_steps",
    "freeze_stats_steps",
    "workers",
    "save_every",
    "device",
)
"""Options that a resumed run may have other values for."""


def _load(path: str | Path, device: torch.device) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    return state


def _check_resumable(config: TrainConfig, before: dict[str, Any], checkpoint: Path) -> None:
    for name, value in asdict(config).items():
        if name not in MAY_CHANGE and before[name] != value:
            raise InputError(
                f"{name}: {checkpoint} was made with {before[name]!r}, got {value!r}; use another "
                "output folder"
            )


def _parameters(model: VideoInpainter, stage: str) -> list[torch.nn.Parameter]:
    module = model.completion if stage == "completion" else model
    assert module is not None
    return list(module.parameters())


def _decay(step: int, config: TrainConfig) -> float:
    left = config.steps - step
    return min(1.0, left / config.decay_steps) if config.decay_steps else 1.0


def _freeze_statistics(model: VideoInpainter) -> None:
    for module in model.modules():
        if isinstance(module, ConvBNReLU):
            module.eval()


def _save(
    path: Path,
    model: VideoInpainter,
    optimizer: torch.optim.Optimizer,
    step: int,
    config: TrainConfig,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "config": asdict(config),
        "model_config": asdict(model.config),
    }
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    temporary.replace(path)
