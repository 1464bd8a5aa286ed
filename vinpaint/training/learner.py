# SPDX-License-Identifier: Apache-2.0
"""The networks of a run with all that their training keeps: the loss, the optimisers, the averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter
from vinpaint.training import checkpoint
from vinpaint.training.config import StageConfig, TrainConfig
from vinpaint.training.distributed import Processes
from vinpaint.training.ema import average_weights
from vinpaint.training.losses import Objective
from vinpaint.training.monitor import logger

REGAIN_STEPS = 200
"""Steps in which the learning rate rises after a checkpoint that came without Adam's moments."""

Mean = tuple[float, float, float]


class Learner:
    """What a run trains, in one of its processes.

    Args:
        config: the run's options.
        processes: all of the run's.
        measure_mean: gives the mean pixel of the training data; asked only if it is needed.
        state: a whole checkpoint to go on from, what :meth:`state` gives in it; ``None``: begin anew.
        where: the checkpoint's file, for messages.

    Raises:
        InputError: weights to start from that do not fit; a checkpoint of another architecture.
    """

    def __init__(
        self,
        config: TrainConfig,
        processes: Processes,
        measure_mean: Callable[[], Mean],
        state: Mapping[str, Any] | None,
        where: Path,
    ) -> None:
        run, device = config.run, processes.device
        self._processes = processes
        weights, options = None, config.model
        if state is not None:
            options = replace(options, mean=tuple(state["config"]["model"]["mean"]))
        elif run.init is not None:
            weights, there = checkpoint.read_weights(run.init)
            self._check_init(config, checkpoint.other_options(there, options))
            options = replace(options, mean=there.mean) if run.mean == "auto" else options
        elif run.mean == "auto":
            options = replace(options, mean=measure_mean())
        self.model = VideoInpainter(options).to(device)
        if weights is not None:
            self._take(config, weights)
        self.objective = Objective(config.losses, device)
        self.average = average_weights(self.model, run.ema) if run.ema else None
        self.optimizer = torch.optim.Adam(self.model.parameters())
        rate = config.losses.adversarial_learning_rate
        opponent = self.objective.trainable()
        self.opponent = torch.optim.Adam(opponent, lr=rate) if opponent else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=run.precision == "fp16")
        self._moments_since: int | None = None
        if state is not None:
            self._restore(state, where)

    @property
    def best(self) -> VideoInpainter:
        """The networks to validate and to save: the averaged ones, if the run averages."""
        model = self.model if self.average is None else self.average.module
        assert isinstance(model, VideoInpainter)
        return model

    def begin_stage(self, stage: StageConfig, *, anew: bool) -> None:
        """Let the networks learn that the stage trains, and the others rest; ``anew``: the average begins, too."""
        if anew and self.average is not None:
            self.average.n_averaged.zero_()
        self.model.train()
        self.model.requires_grad_(True)
        resting = {"completion": self.model.comb, "comb": self.model.completion}
        module = resting.get(stage.networks)
        if module is not None:
            module.eval().requires_grad_(False)

    def rate(self, stage: StageConfig, step: int, done: int) -> float:
        """The learning rate of the stage's ``step``, after ``done`` steps of the run."""
        rate = stage.rate(step)
        if self._moments_since is None:
            return rate
        return rate * min(1.0, (done - self._moments_since + 1) / REGAIN_STEPS)

    def forget_gradients(self) -> None:
        """Before a step."""
        self.optimizer.zero_grad()
        if self.opponent is not None:
            self.opponent.zero_grad()

    def descend(self, stage: StageConfig, rate: float) -> dict[str, Tensor]:
        """One step of the optimisers; returns the length of each one's gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        longest = float("inf") if stage.clip_norm is None else stage.clip_norm
        norms = {"grad_norm": nn.utils.clip_grad_norm_(self.model.parameters(), longest)}
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.opponent is not None:
            parameters = self.opponent.param_groups[0]["params"]
            gradients = [p.grad for p in parameters if p.grad is not None]
            self._processes.average(gradients)
            norms["discriminator_grad_norm"] = nn.utils.get_total_norm(gradients)
            self.opponent.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return norms

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        average = None
        if self.average is not None:
            told = int(self.average.n_averaged)
            average = {"model": self.average.module.state_dict(), "told": told}
        return {
            "model": self.model.state_dict(),
            "average": average,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "objective": self.objective.state_dict(),
            "opponent": None if self.opponent is None else self.opponent.state_dict(),
            "moments_since": self._moments_since,
        }

    def _restore(self, state: Mapping[str, Any], where: Path) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.objective.load_state_dict(state["objective"])
            if self.average is not None:
                average = state["average"] or {"model": state["model"], "told": 0}
                self.average.module.load_state_dict(average["model"])
                self.average.n_averaged.fill_(average["told"])
        except RuntimeError as error:
            raise InputError(f"{where} is of another architecture: {error}") from error
        self._moments_since = state["moments_since"]
        if state["optimizer"] is None:
            self._moments_since = state["done"]
            return
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where gradients were not scaled
            self.scaler.load_state_dict(state["scaler"])
        if self.opponent is not None:
            self.opponent.load_state_dict(state["opponent"])

    def _check_init(self, config: TrainConfig, differing: Sequence[str]) -> None:
        if not differing:
            return
        init = config.run.init
        if config.run.strict:
            raise InputError(
                f"init: {init} was trained with other options: {'; '.join(differing)}; set these to what "
                "is there, or run.strict = false, which takes the weights nonetheless"
            )
        if self._processes.first:
            logger.warning("%s was trained with other options: %s", init, "; ".join(differing))

    def _take(self, config: TrainConfig, weights: Mapping[str, Tensor]) -> None:
        differing = checkpoint.take_weights(self.model, weights)
        init = config.run.init
        if differing and config.run.strict:
            raise InputError(
                f"init: {len(differing)} weights of {init} and the model differ, first "
                f"{differing[0]}; run.strict = false takes the others"
            )
        if self._processes.first:
            for weight in differing:
                logger.warning("not taken from %s: %s", init, weight)
