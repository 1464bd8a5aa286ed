# SPDX-License-Identifier: Apache-2.0
"""The options of a training run: a TOML file, or the same dataclasses in Python."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig
from vinpaint.training.data import DataConfig
from vinpaint.training.interruption import seconds
from vinpaint.training.losses import LossConfig, check
from vinpaint.training.options import build, override, read_toml


def _expect(config: Any, name: str, expected: str, holds: Any) -> None:
    value = getattr(config, name)
    if value is not None and not holds(value):
        raise InputError(f"{name}: expected {expected}, got {value!r}")


@dataclass(frozen=True)
class StageConfig:
    """One stretch of a run, with its own networks, sizes and learning rate.

    Attributes:
        networks: "completion" trains 3DCN alone; "comb" CombCN alone, 3DCN frozen; "joint" all networks of
            the model, the only kind for a 2DCN.
        steps: optimiser steps.
        batch: clips a process computes at a time; each such micro-batch normalises itself.
        accumulate: micro-batches a process computes for one step.
        frames: frames a clip.
        size: height and width of a clip in pixels.
        comb_frames: frames of each clip that CombCN trains on; "none": all, as in the paper.
            Neighbouring frames are much alike, so a few of each of more clips teach more.
        learning_rate: Adam's; the paper's is 1e-3.
        schedule: "constant", or how the learning rate falls: "linear" or "cosine".
        warmup: first steps, in which the learning rate rises linearly.
        decay: last steps, in which the learning rate falls; "none": all after the warm-up.
        final_rate: share of the learning rate that is left at the end of the fall.
        clip_norm: longest gradient, a longer one is scaled down to it; "none": any length.
        freeze_stats_steps: last steps that normalise with the running statistics, so that the networks
            meet in training what they will meet in use.
    """

    networks: Literal["completion", "comb", "joint"] = "joint"
    steps: int = 10_000
    batch: int = 1
    accumulate: int = 1
    frames: int = 32
    size: int = 128
    comb_frames: int | None = None
    learning_rate: float = 1e-3
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    decay: int | None = None
    final_rate: float = 0.0
    clip_norm: float | None = None
    freeze_stats_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "frames", "size", "comb_frames"):
            _expect(self, name, "1 or more", lambda value: value >= 1)
        for name in ("learning_rate", "warmup", "decay", "freeze_stats_steps"):
            _expect(self, name, "0 or more", lambda value: value >= 0)
        _expect(self, "final_rate", "a share from 0 to 1", lambda value: 0 <= value <= 1)
        _expect(self, "clip_norm", "more than 0", lambda value: value > 0)
        if self.comb_frames is not None and self.comb_frames > self.frames:
            raise InputError(
                f"comb_frames: expected at most the clip's {self.frames} frames, got {self.comb_frames}"
            )
        if self.warmup + (self.decay or 0) > self.steps:
            raise InputError(
                f"warmup: expected warm-up and decay within the stage's {self.steps} steps, got "
                f"{self.warmup} and {self.decay or 0}"
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = min(1.0, (step + 1) / (self.warmup + 1))
        decay = self.steps - self.warmup if self.decay is None else self.decay
        fallen = 1.0 - min(1.0, (self.steps - step) / decay) if decay else 0.0
        if self.schedule == "constant":
            fallen = 0.0
        elif self.schedule == "cosine":
            fallen = (1.0 - math.cos(math.pi * fallen)) / 2
        return self.learning_rate * rising * (1.0 - (1.0 - self.final_rate) * fallen)


@dataclass(frozen=True)
class RunConfig:
    """Everything of a run that is neither data nor networks nor loss nor one stage's.

    Attributes:
        output: folder of the run: checkpoint.pt, log.jsonl, config.toml, loss.png, and weights for
            "vinpaint inpaint --weights".
        resume: "auto" goes on from the checkpoint in the output folder if there is one; "must" insists
            on one; "never" begins anew and removes it when all else was checked.
        init: a checkpoint, a folder of weights, or the name of shipped weights to start from.
        strict: it is an error if "init" has not exactly the model's options and weights; else the weights
            that fit are taken and what differs is logged.
        mean: "auto" measures the mean pixel that stands in for the hole on the training data, or takes
            the one of "init"; "model" takes the model's option of that name.
        seed: everything random derives from it.
        device: "auto" is the first CUDA device if there is one, else the CPU.
        precision: "bf16" and "fp16" are autocast, the second with scaled gradients.
        ema: decay of the running average of the weights that is validated and saved; 0: no average.
        save_every: steps between two checkpoints.
        time_limit: such as "90s", "8m" or "1h30m": then the run saves and stops, to be gone on with; while
            footage is decoded as soon as the clips in work are; "none": no limit.
        workers: processes that make samples; 0: the one that trains.
        validate_every: steps between two validations on held-out clips; 0: none.
        validation_clips: clips of a validation, always the same.
        tensorboard: also write scalars and pictures for TensorBoard.
    """

    output: str = "run"
    resume: Literal["auto", "must", "never"] = "auto"
    init: str | None = None
    strict: bool = True
    mean: Literal["auto", "model"] = "auto"
    seed: int = 0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    ema: float = 0.999
    workers: int = 2
    save_every: int = 500
    time_limit: str | None = None
    validate_every: int = 500
    validation_clips: int = 8
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _expect(self, "ema", "0, or more and less than 1", lambda value: 0 <= value < 1)
        for name in ("seed", "workers", "validate_every"):
            _expect(self, name, "0 or more", lambda value: value >= 0)
        for name in ("save_every", "validation_clips"):
            _expect(self, name, "1 or more", lambda value: value >= 1)
        if self.time_limit is not None:
            seconds(self.time_limit)


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        data: what the samples are made of.
        model: options of the networks.
        losses: weights of the terms.
        run: where, on what, how exact, how long.
        stages: what is trained, one after the other.
    """

    data: DataConfig
    model: InpainterConfig = field(default_factory=InpainterConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    run: RunConfig = field(default_factory=RunConfig)
    stages: tuple[StageConfig, ...] = (StageConfig(),)

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("stages: expected one or more, got none")
        if self.run.mean == "auto" and self.model.mean != InpainterConfig().mean:
            raise InputError(
                'model.mean: only taken with run.mean = "model", got run.mean = "auto", which measures it'
            )
        for index, stage in enumerate(self.stages):
            if self.model.mode == "2dcn" and stage.networks != "joint":
                raise InputError(
                    f"stages.{index}.networks: expected joint, since a 2DCN has no 3DCN to tell from, "
                    f"got {stage.networks}"
                )
            if stage.networks != "completion":
                _check_losses(self.losses, stage, index)

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)


def _check_losses(losses: LossConfig, stage: StageConfig, index: int) -> None:
    sizes = {"frames": stage.frames, "size": stage.size}
    try:
        check(losses, **sizes, comb_frames=stage.comb_frames)
    except InputError as error:
        raise InputError(f"stages.{index}.{error}") from error


RECIPES = ("default", "paper")
"""Configurations that come with the package, by name."""

SOURCES = f"a TOML file, a recipe ({', '.join(RECIPES)}), or a folder of videos"


def recipe(name: str) -> Path:
    """The file of one of :data:`RECIPES`."""
    return Path(str(resources.files("vinpaint") / "training" / "recipes" / f"{name}.toml"))


CONFIG = "config.toml"
"""The file in a run's folder with all its options."""


def find_config(output: str | None, *, any_recipe: bool = False) -> Path:
    """The configuration of the run in ``output``.

    Args:
        output: folder of a run, if any.
        any_recipe: take the default recipe if there is no run.

    Raises:
        InputError: there is no run.
    """
    path = Path(output or "") / CONFIG
    if output is not None and path.exists():
        return path
    if any_recipe:
        return recipe("default")
    run = "" if output is None else f"; there is no run in {output} to go on with"
    raise InputError(f"CONFIG: expected {SOURCES}{run}")


def load_config(source: str | Path, assignments: Iterable[str] = ()) -> TrainConfig:
    """Read a configuration.

    Args:
        source: a TOML file, the name of a recipe, or a folder of videos for the default recipe. A file
            or folder that has the name of a recipe is reached by a path, such as ``./paper``.
        assignments: what to change in it, such as ``stages.0.steps=100``.

    Without ``data.cache`` the shots are kept in the folder ``shots`` of the run.

    Raises:
        InputError: an unknown option, a wrong type, a value out of range, each named with its section.
    """
    path = Path(source)
    values: dict[str, Any]
    if isinstance(source, str) and source in RECIPES:
        values = read_toml(recipe(source))
    elif path.is_dir():
        values = read_toml(recipe("default"))
        values["data"] = {**values.get("data", {}), "folders": [str(source)]}
    elif path.exists():
        values = read_toml(path)
    else:
        raise InputError(f"CONFIG: expected {SOURCES}, found no {source}")
    override(values, assignments)
    data, run = values.setdefault("data", {}), values.setdefault("run", {})
    if isinstance(data, dict) and isinstance(run, dict):
        data.setdefault("cache", default_cache(run.get("output", RunConfig.output)))
    return build(TrainConfig, values)


def default_cache(output: str) -> str:
    """Where a run keeps its shots if it is not told."""
    return str(Path(output) / "shots")


def check_footage(config: TrainConfig) -> None:
    """Refuse a run that was told neither of footage nor of a cache with shots.

    Raises:
        InputError: there is nothing to train on.
    """
    data, cache = config.data, Path(config.data.cache)
    named = data.folders or data.photos or str(cache) != default_cache(config.run.output)
    if not named and not any(cache.glob("*.npy")):
        raise InputError("data.folders: expected footage to train on, got none")
