# SPDX-License-Identifier: Apache-2.0
"""What a run shows: its log, a progress bar, TensorBoard, the loss curves."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

logger = logging.getLogger("vinpaint.training")
"""Says in plain words what the run does; silent unless the program that trains listens."""

LOG, CURVES = "log.jsonl", "loss.png"

EXTRA = "pip install matplotlib tensorboard"

PICTURES = 6
"""Frames of a clip that are shown side by side."""


class Progress(Protocol):
    """Told of every step of a run."""

    def __call__(self, done: int, total: int, figures: Mapping[str, Any], /) -> None:
        """Steps done, steps in all, and the row of the log."""


LINE_SECONDS = 60
"""Between two lines of progress where there is no terminal to draw a bar on."""


class ProgressBar:
    """Losses, rate and time left in one line, or a line a minute where standard error is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._said = time.monotonic()

    def __call__(self, done: int, total: int, figures: Mapping[str, Any], /) -> None:
        if self._bar is None:
            self._bar = tqdm(
                unit="step", dynamic_ncols=True, disable=None, total=total, initial=done - 1
            )
        shown = {name: f"{figures[name]:.2f}" for name in figures if name.startswith("l1_")}
        rate, wait = figures["clips_per_second"], figures["data_wait"]
        shown |= {"clips/s": f"{rate:.3g}", "wait": f"{wait:.0%}"}
        self._bar.set_postfix(shown, False)
        self._bar.update(done - self._bar.n)
        if self._bar.disable and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            named = ", ".join(f"{name} {value}" for name, value in shown.items())
            logger.info("step %d of %d: %s", done, total, named)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def say_on_terminal() -> Iterator[None]:
    """Print what the run says beside the progress bar, warnings marked as such."""
    handler = _Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        mark = "vinpaint: warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(mark + record.getMessage(), sys.stderr if mark else sys.stdout)
        sys.stdout.flush()


class Log:
    """``log.jsonl``: a row a step, and rows with the key ``event``. What came after ``step`` is dropped."""

    def __init__(self, path: Path, step: int) -> None:
        kept = [row for row in read_log(path) if row["step"] <= step] if path.exists() else []
        partial = path.with_name(path.name + ".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; rounded, and ``null`` for what is no number."""
        self._file.write(json.dumps({name: _short(value) for name, value in row.items()}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a log; a last one that was cut off in the middle is left out."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Board:
    """TensorBoard's files in the run folder; nothing, and a message, where TensorBoard is missing."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.warning("run.tensorboard: TensorBoard is not installed: %s", EXTRA)
            return
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def figures(self, step: int, figures: Mapping[str, Any], group: str) -> None:
        """Numbers of a row as curves."""
        if self._writer is not None:
            for name, value in figures.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, step: int, name: str, pictures: Tensor) -> None:
        """A picture (3, H, W) in [0, 1]."""
        if self._writer is not None:
            self._writer.add_image(name, pictures, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def picture_rows(frames: Tensor, mask: Tensor, completed: Tensor) -> Tensor:
    """A clip as one picture (3, 3 H, n W) in [0, 1], some frames from left to right.

    Args:
        frames: the truth (3, F, H, W); the top row shows it with the hole in red, the last as it is.
        mask: (1, F, H, W), 1 in the hole.
        completed: what the network gave (3, F, H, W); the middle row shows it in the hole.
    """
    count = frames.shape[1]
    chosen = torch.linspace(0, count - 1, min(count, PICTURES)).round().long()
    frames, mask, completed = (clip[:, chosen].float().cpu() for clip in (frames, mask, completed))
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1, 1)
    rows = (
        torch.where(mask > 0, 0.5 * frames + 0.5 * red, frames),
        torch.where(mask > 0, completed.clamp(0, 1), frames),
        frames,
    )
    return torch.cat([torch.cat(list(row.unbind(1)), dim=2) for row in rows], dim=1)


def plot_losses(log: str | Path, picture: str | Path) -> bool:
    """Draw the l1 of both networks over the steps of a log: raw, smoothed, validated, stages marked.

    Returns:
        Whether there was something to draw, and matplotlib to draw it with.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("%s: matplotlib is not installed: %s", picture, EXTRA)
        return False
    rows = read_log(log)
    steps = [row for row in rows if "event" not in row]
    validations = [row for row in rows if row.get("event") == "validation"]
    curves = {"l1_3dcn": ("3DCN", "#0072b2"), "l1_combcn": ("CombCN", "#d55e00")}
    if not steps:
        return False
    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for key, (name, colour) in curves.items():
        own = [row for row in steps if row.get(key) is not None]
        if own:
            x, y = np.array([[row["step"], row[key]] for row in own]).T
            axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.6)
            axes.plot(x, _smoothed(y), color=colour, linewidth=1.8, label=name)
        held_out = [(row["step"], row[key]) for row in validations if row.get(key) is not None]
        if held_out:
            axes.plot(
                *zip(*held_out, strict=True),
                marker="o",
                linestyle="none",
                color=colour,
                markeredgecolor="black",
                label=f"{name}, validation",
            )
    for before, after in pairwise(steps):
        if after["stage"] != before["stage"]:
            axes.axvline(before["step"] + 0.5, color="grey", linestyle="--", linewidth=1)
            axes.annotate(
                f" stage {after['stage']}",
                (before["step"] + 0.5, 0.99),
                xycoords=("data", "axes fraction"),
                va="top",
                color="grey",
            )
    axes.set(xlabel="step", ylabel="l1 inside the hole, of 255", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture)
    return True


def _smoothed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean over a window of a thirtieth of the curve, shorter at its ends."""
    half = max(1, len(values) // 60)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))
