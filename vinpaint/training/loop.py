# SPDX-License-Identifier: Apache-2.0
"""The training loop: one stage after the other, resumable at any step, in one process or several."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import vinpaint
from vinpaint.errors import InputError
from vinpaint.nn import VideoInpainter
from vinpaint.pretrained import save_pretrained
from vinpaint.training import checkpoint
from vinpaint.training.config import CONFIG, StageConfig, TrainConfig, check_footage
from vinpaint.training.data import ClipDataset, prepare_data
from vinpaint.training.distributed import Processes, RunningStatistics, join_processes
from vinpaint.training.interruption import TIME_LIMIT, Interruption, Stopped, ignore_signals
from vinpaint.training.learner import Learner
from vinpaint.training.losses import Objective, Output, choose_frames
from vinpaint.training.monitor import (
    CURVES,
    LOG,
    Board,
    Log,
    Progress,
    logger,
    plot_losses,
)
from vinpaint.training.networks import Batch, Networks
from vinpaint.training.options import plain, to_toml
from vinpaint.training.validation import picture, validate

WEIGHTS = "weights"

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(config: TrainConfig, *, progress: Progress | None = None) -> VideoInpainter:
    """Train, or go on training if the output folder holds a checkpoint.

    Example::

        from vinpaint.training import DataConfig, RunConfig, StageConfig, TrainConfig, train

        config = TrainConfig(
            data=DataConfig(cache="shots", folders=("videos",)),
            run=RunConfig(output="run", precision="fp32"),
            stages=(
                StageConfig(networks="completion", steps=20, frames=4, size=32),
                StageConfig(networks="joint", steps=20, frames=4, size=32, schedule="cosine"),
            ),
        )
        model = train(config)  # the weights are in run/weights, too

    Args:
        config: what to train, on what, for how long.
        progress: told of every step.

    Returns:
        The trained model in evaluation mode: its averaged weights, if the run averages.

    Raises:
        InputError: no data, no such device, or a checkpoint in the output folder made with other options.
        Stopped: a signal or the time limit came; everything is saved, the same call goes on (but not with
            ``resume="never"``, which begins anew each time).
    """
    check_footage(config)
    with join_processes(config.run.device) as processes:
        return _Run(config, processes, progress).go()


class _Step:
    """A step that was computed, its figures still on the way from the device."""

    def __init__(self, figures: dict[str, Tensor], row: dict[str, Any], stopping: bool) -> None:
        self.row, self.names = row, [*figures, "stopping"]
        values = [figure.detach().float() for figure in figures.values()]
        self.values = torch.stack([*values, values[0].new_tensor(float(stopping))])
        self.clips = 0
        self.started = self.waited = 0.0
        self.ended: float | None = None


class _Run:
    """The state of a run in one of its processes."""

    def __init__(
        self, config: TrainConfig, processes: Processes, progress: Progress | None
    ) -> None:
        self.config, self.processes, self.progress = config, processes, progress
        self.device = processes.device
        self.folder = Path(config.run.output)
        self.dtype = DTYPES[config.run.precision]
        self.stage = self.step = self.done = self.samples = 0
        self.seconds = 0.0
        self.clips = 0
        self.busy = self.waited = 0.0
        self.log: Log | None = None
        self.board: Board | None = None
        self.held_out: ClipDataset | None = None

    def go(self) -> VideoInpainter:
        interruption = Interruption(self.config.run.time_limit)  # its time runs from here
        state = self.processes.from_first(self._saved_state() if self.processes.first else None)
        with warnings.catch_warnings():
            if not self.processes.first:
                warnings.simplefilter("ignore")  # said once
            self._prepare_data(interruption, 0 if state is None else state["done"])
        # All of them now: what is wrong with a later stage is said before the first step.
        self.samples_of = [self._samples(stage, sys.maxsize) for stage in self.config.stages]
        torch.manual_seed(self.config.run.seed)
        mean, where = self.samples_of[0].mean, self.folder / checkpoint.NAME
        self.learner = Learner(self.config, self.processes, mean, state, where)
        if state is not None:
            self._restore(state)
            del state  # as large as all that was restored from it
        with ExitStack() as stack:
            if self.processes.first:
                self.folder.mkdir(parents=True, exist_ok=True)
                if self.config.run.resume == "never":
                    for old in (checkpoint.NAME, LOG):
                        (self.folder / old).unlink(missing_ok=True)
                (self.folder / CONFIG).write_text(to_toml(self._resolved()), encoding="utf-8")
                self.log = Log(self.folder / LOG, self.done)
                stack.callback(self.log.close)
                if self.config.run.tensorboard:
                    self.board = Board(self.folder, self.done)
                    stack.callback(self.board.close)
            stack.enter_context(interruption)
            for index in range(self.stage, len(self.config.stages)):
                if index > self.stage:
                    self.stage, self.step = index, 0
                self._run_stage(self.config.stages[index], interruption)
        self._finish()
        return self.learner.best.eval()

    # --- before the first step

    def _prepare_data(self, interruption: Interruption, step: int) -> None:
        """Decode what is not decoded yet; all processes stop if the time of one of them is up meanwhile."""
        stopped = None
        try:
            prepare_data(self.config.data, progress=self._say_decoded(interruption, step))
        except Stopped as error:
            stopped = error
        stopping = torch.tensor(float(stopped is not None), device=self.device)
        self.processes.average([stopping])  # waits for the others, too
        if stopping.item() > 0:
            raise stopped or Stopped(TIME_LIMIT, step)

    def _saved_state(self) -> dict[str, Any] | None:
        path, resume = self.folder / checkpoint.NAME, self.config.run.resume
        if resume == "never":
            return None  # what is there is removed when nothing can be wrong with the run any more
        if resume == "must" and not path.exists():
            raise InputError(f"--resume: expected a checkpoint, found no {path}")
        if not path.exists():
            return None
        state = checkpoint.read_checkpoint(path)
        checkpoint.check_same_run(self.config, state, path)
        return state

    def _restore(self, state: Mapping[str, Any]) -> None:
        checkpoint.set_random_state(state["random"])
        self.stage, self.step, self.done = state["stage"], state["step"], state["done"]
        self.samples, self.seconds = state["samples"], state["seconds"]
        self._say("going on after step %d of %d", self.done, self.config.steps)

    def _resolved(self) -> TrainConfig:
        """The options to go on with, the mean pixel that was measured among them."""
        run = replace(self.config.run, mean="model", resume="auto", time_limit=None)
        return replace(self.config, model=self.learner.model.config, run=run)

    # --- the stages

    def _run_stage(self, stage: StageConfig, interruption: Interruption) -> None:
        if self.step >= stage.steps:
            return
        self._say(
            "stage %d: %s, %d steps of %d clips of %d frames of %d x %d",
            *(self.stage, stage.networks, stage.steps),
            *(stage.batch * stage.accumulate * self.processes.count, stage.frames),
            *(stage.size, stage.size),
        )
        self.learner.begin_stage(stage, anew=self.step == 0)
        self.held_out = self._held_out(stage) if self.config.run.validate_every else None
        model = self.learner.model
        networks = self.processes.share_gradients(Networks(model, stage))
        clips = self._clips(stage)
        parts = (stage.accumulate, self.processes)
        statistics = RunningStatistics(model, *parts)
        pending: _Step | None = None
        while self.step < stage.steps:
            if stage.steps - self.step <= stage.freeze_stats_steps and model.training:
                model.eval()
                statistics = RunningStatistics(model, *parts)
            computed = self._one_step(stage, networks, clips, statistics, interruption)
            last = self.step >= stage.steps
            every = self.config.run.validate_every
            validate = bool(every) and (last or self.done % every == 0)
            save = last or self.done % self.config.run.save_every == 0
            # A step late: while its figures travel the device has the next one to compute.
            stop = pending is not None and self._note(pending)
            pending = computed
            if validate or save or stop:
                stop, pending = self._note(pending) or stop, None
            else:
                computed.ended = time.monotonic()
            if validate:
                self._validate(stage)
            if save or stop:
                self._save()
            if stop and not (last and self.stage == len(self.config.stages) - 1):
                self._finish()
                fresh = self.config.run.resume == "never"
                raise Stopped(interruption.reason or TIME_LIMIT, self.done, fresh=fresh)

    def _clips(self, stage: StageConfig) -> Iterator[list[Tensor]]:
        """Micro-batches of this process from where the run is to the end of the stage."""
        processes, batch = self.processes, stage.batch
        count = (stage.steps - self.step) * stage.accumulate
        start, stride = self.samples + processes.rank * batch, processes.count * batch
        firsts = range(start, start + count * stride, stride)
        loader = DataLoader(
            self.samples_of[self.stage],
            batch_sampler=(list(range(first, first + batch)) for first in firsts),
            num_workers=self.config.run.workers,
            worker_init_fn=ignore_signals,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or the loader would draw from the run's
        )
        return iter(loader)

    def _samples(
        self, stage: StageConfig, stop: int, split: Literal["train", "validation"] = "train"
    ) -> ClipDataset:
        return ClipDataset(
            self.config.data,
            frames=stage.frames,
            size=stage.size,
            stop=stop,
            seed=self.config.run.seed,
            split=split,
        )

    def _held_out(self, stage: StageConfig) -> ClipDataset | None:
        try:
            return self._samples(stage, self.config.run.validation_clips, "validation")
        except InputError as error:
            if self.processes.first:
                logger.warning("no validation in stage %d: %s", self.stage, error)
            return None

    def _one_step(
        self,
        stage: StageConfig,
        networks: nn.Module,
        clips: Iterator[list[Tensor]],
        statistics: RunningStatistics,
        interruption: Interruption,
    ) -> _Step:
        started = time.monotonic()
        waited = 0.0
        learner = self.learner
        rate = learner.rate(stage, self.step, self.done)
        chosen = choose_frames(self.config.losses, stage.frames, stage.comb_frames, self.done)
        learner.forget_gradients()
        sums: dict[str, Tensor] = {}
        statistics.begin_step()
        for part in range(stage.accumulate):
            asked = time.monotonic()
            samples = next(clips)
            waited += time.monotonic() - asked
            batch = self._to_device(samples)
            last = part == stage.accumulate - 1
            with ExitStack() as stack:
                if not last:
                    stack.enter_context(self.processes.keep_gradients(networks))
                with self._autocast():
                    output = networks(batch, chosen)
                    total, terms = learner.objective(output)
                learner.scaler.scale(total / stage.accumulate).backward()
            statistics.end_part()
            with self._autocast():
                opposing = learner.objective.discriminator_loss(output)
            if opposing is not None:
                (opposing / stage.accumulate).backward()
                terms["discriminator"] = opposing.detach()
            for name, term in {"loss": total.detach(), **terms}.items():
                sums[name] = sums.get(name, 0) + term / stage.accumulate
        statistics.end_step()
        sums |= learner.descend(stage, rate)
        self.step += 1
        self.done += 1
        row = {"step": self.done, "stage": self.stage, "lr": rate}
        computed = _Step(sums, row, interruption.reason is not None)
        computed.started, computed.waited = started, waited
        computed.clips = stage.batch * stage.accumulate * self.processes.count
        self.samples += computed.clips
        return computed

    def _to_device(self, samples: list[Tensor]) -> Batch:
        frames, hole, *carried = (part.to(self.device, non_blocking=True) for part in samples)
        frames = frames.float().div_(255)
        if not carried:
            return Batch(frames, hole.float(), frames)
        given, unknown = carried
        return Batch(frames, unknown.float().div_(255), given.float().div_(255))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _note(self, computed: _Step) -> bool:
        """Log a step; returns whether any process wants to stop."""
        self.processes.average([computed.values])
        figures = dict(zip(computed.names, computed.values.tolist(), strict=True))
        stopping = figures.pop("stopping") > 0
        seconds = (computed.ended or time.monotonic()) - computed.started
        self.seconds += seconds
        self.busy += seconds
        self.waited += computed.waited
        self.clips += computed.clips
        row = {
            **computed.row,
            **figures,
            "clips_per_second": computed.clips / seconds,
            "data_wait": computed.waited / seconds,
            "seconds": self.seconds,
        }
        self._check_finite(figures, row["step"])
        if self.log is not None:
            self.log.write(row)
        if self.board is not None:
            self.board.figures(row["step"], row, "training")
        if self.progress is not None and self.processes.first:
            self.progress(row["step"], self.config.steps, row)
        return stopping

    def _check_finite(self, figures: Mapping[str, float], step: int) -> None:
        """Raise before anything is saved: an endless gradient kills the weights, its loss may look sound."""
        checked = {"loss": "loss", "discriminator_grad_norm": "discriminator's gradient"}
        if not self.learner.scaler.is_enabled():  # which leaves out a step with such a gradient
            checked["grad_norm"] = "gradient"
        for figure, name in checked.items():
            if not math.isfinite(figures.get(figure, 0.0)):
                raise FloatingPointError(
                    f"the {name} of step {step} is no finite number; go on from the last checkpoint in "
                    f"{self.folder} with a lower learning rate, clip_norm, or precision fp32"
                )

    # --- at times, and in the end

    def _say(self, message: str, *values: Any) -> None:
        if self.processes.first:
            logger.info(message, *values)

    def _say_decoded(self, interruption: Interruption, step: int) -> Callable[[int, int], None]:
        """Says every ten seconds how far the decoding is, and ends it when the run's time is up."""
        said = time.monotonic()

        def say(done: int, total: int) -> None:
            nonlocal said
            if time.monotonic() - said >= 10 or done == total:
                self._say("%d of %d clips are decoded", done, total)
                said = time.monotonic()
            if interruption.reason is not None and done < total:
                raise Stopped(interruption.reason, step)

        return say

    def _validate(self, stage: StageConfig) -> None:
        """Validate the weights that would be saved now, and say what came of it."""
        if self.held_out is None:
            return
        means = validate(
            self.learner.best,
            stage,
            self.held_out,
            self.processes,
            self._outcome,
            None if self.board is None else self._show,
        )
        if self.log is not None:
            row = {"step": self.done, "stage": self.stage, "event": "validation", **means}
            self.log.write(row)
        if self.board is not None:
            self.board.figures(self.done, means, "validation")
        shown = ", ".join(f"{name} {value:.2f}" for name, value in means.items())
        self._say("validation after step %d: %s", self.done, shown)

    def _show(self, output: Output) -> None:
        assert self.board is not None
        self.board.pictures(self.done, "hole, fill, truth", picture(output))

    def _outcome(
        self, networks: Networks, objective: Objective, samples: list[Tensor]
    ) -> tuple[Output, dict[str, Tensor]]:
        """What networks give for all frames of a batch, and its losses."""
        batch = self._to_device(samples)
        with self._autocast():
            output = networks(batch, torch.arange(batch.frames.shape[2]))
            return output, objective(output)[1]

    def _save(self) -> None:
        if not self.processes.first:
            return
        state = {
            "versions": {"vinpaint": vinpaint.__version__, "torch": str(torch.__version__)},
            "config": plain(self._resolved()),
            "stage": self.stage,
            "step": self.step,
            "done": self.done,
            "samples": self.samples,
            "seconds": self.seconds,
            "random": checkpoint.random_state(),
            **self.learner.state(),
        }
        checkpoint.write_checkpoint(self.folder / checkpoint.NAME, state)

    def _finish(self) -> None:
        """What a run leaves when it ends or is stopped."""
        if self.processes.first:
            self._leave()
        self.processes.wait()  # torchrun ends all when one has ended by a time limit

    def _leave(self) -> None:
        save_pretrained(self.learner.best, self.folder / WEIGHTS)
        plot_losses(self.folder / LOG, self.folder / CURVES)
        if self.busy:
            self._say(
                "%d clips in %.0f s, %.3g clips/s; %.1f %% of it waited for data",
                *(self.clips, self.busy, self.clips / self.busy, 100 * self.waited / self.busy),
            )
