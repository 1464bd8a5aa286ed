# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole or not there, of this run or refused; and weights to start from."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.pretrained import load_pretrained, weights_folder
from vinpaint.training.config import TrainConfig
from vinpaint.training.options import plain

NAME = "checkpoint.pt"

FORMAT = 1
"""Raised when a checkpoint of an earlier version can no longer be read."""

RUN_MAY_CHANGE = {
    *(
        "output",
        "resume",
        "init",
        "strict",
        "mean",
        "device",
        "precision",
        "save_every",
        "time_limit",
    ),
    *("workers", "validate_every", "validation_clips", "tensorboard"),
}
"""Options of a run that may be others when it goes on."""

STAGE_MAY_CHANGE = {
    *("steps", "learning_rate", "schedule", "warmup", "decay", "final_rate", "clip_norm"),
    "freeze_stats_steps",
}
"""Options of a stage begun that may be others when it goes on; a stage to come may be any."""

DATA_MAY_CHANGE = {"folders", "photos", "boxes", "cache", "decoders"}
"""Options of the data that may be others: the same footage may have been moved."""


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; if the machine stops meanwhile, the one before is still there."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint, on the CPU.

    Raises:
        InputError: no such file, or none that :func:`write_checkpoint` of this version wrote.
    """
    try:
        state: Any = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise InputError(f"checkpoint: expected a file, found no {path}") from error
    except (RuntimeError, EOFError, ValueError, OSError, pickle.UnpicklingError) as error:
        raise InputError(
            f"checkpoint: {path} is damaged, or none of this version of vinpaint"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"checkpoint: {path} is none of this version of vinpaint")
    return state


def check_same_run(config: TrainConfig, state: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on from a checkpoint that was made with other options.

    Raises:
        InputError: which options differ.
    """
    saved, wanted = state["config"], plain(config)
    if config.run.mean == "auto":
        wanted["model"]["mean"] = saved["model"]["mean"]
    differing: list[str] = []
    for section, may_change in (
        ("model", set()),
        ("losses", set()),
        ("data", DATA_MAY_CHANGE),
        ("run", RUN_MAY_CHANGE),
    ):
        differing += _differing(saved[section], wanted[section], section, may_change)
    begun = state["stage"] + (1 if state["step"] else 0)
    if len(wanted["stages"]) < begun:
        differing.append(f"stages ({begun} begun, {len(wanted['stages'])} asked for)")
    stages = list(zip(saved["stages"], wanted["stages"], strict=False))[:begun]
    for index, (before, now) in enumerate(stages):
        may_change = STAGE_MAY_CHANGE if index == state["stage"] else set()
        differing += _differing(before, now, f"stages.{index}", may_change)
    if differing:
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"{path} was made with other options: {'; '.join(differing[:4])}{more}; use another output folder, "
            "or --fresh to begin anew"
        )


def _differing(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], where: str, may_change: set[str]
) -> Iterator[str]:
    for name in sorted({*saved, *wanted} - may_change):
        before, now = saved.get(name), wanted.get(name)
        if before != now:
            yield f"{where}.{name} ({before!r} there, {now!r} asked for)"


def random_state() -> dict[str, Any]:
    """The states of torch's generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what :func:`random_state` gave, as far as the devices are the same."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def read_weights(path: str | Path) -> tuple[dict[str, torch.Tensor], InpainterConfig]:
    """Weights of a checkpoint (its averaged weights, if it has them) or weights folder, and their model's options.

    Args:
        path: a checkpoint, the folder of a run, a folder of weights, or the name of shipped weights.

    Raises:
        InputError: none of them is there.
    """
    path = weights_folder(path)
    if path.is_dir() and not (path / NAME).exists():
        model = load_pretrained(path)
        return model.state_dict(), model.config
    state = read_checkpoint(path / NAME if path.is_dir() else path)
    options = dict(state["config"]["model"])
    options["mean"] = tuple(options["mean"])
    return (state["average"] or state)["model"], InpainterConfig(**options)


def other_options(there: InpainterConfig, wanted: InpainterConfig) -> list[str]:
    """What weights of one model would mean something else for in another; the mean pixel goes with them."""
    return list(_differing(plain(there), plain(wanted), "model", {"mean"}))


def take_weights(model: VideoInpainter, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Copy the weights that fit by name and shape; returns the others and what is wrong with each."""
    own = model.state_dict()
    differing = []
    for name in sorted({*own, *weights}):
        if name not in weights:
            differing.append(f"{name} (missing there)")
        elif name not in own:
            differing.append(f"{name} (not in the model)")
        elif own[name].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)} there, {tuple(own[name].shape)} in the model"
            differing.append(f"{name} ({shapes})")
        else:
            own[name].copy_(weights[name])
    return differing
