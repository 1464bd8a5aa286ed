# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: a folder with ``model.safetensors``, ``config.json`` and a model card."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig, VideoInpainter

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


SHIPPED = ("combcn", "combcn-s")
"""Names of the weights that ship with the package: the paper's networks, and narrow ones for weak CPUs."""


def weights_folder(weights: str | Path | None = None) -> Path:
    """The folder of weights given by name or by path; ``None``: the first of :data:`SHIPPED`.

    A folder that has the name of shipped weights is reached by a path, such as ``./combcn``.
    """
    if weights is None or weights in SHIPPED:
        return Path(str(resources.files("vinpaint") / "assets" / "weights")) / (
            weights or SHIPPED[0]
        )
    return Path(weights)


def save_pretrained(
    model: VideoInpainter, folder: str | Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write weights and configuration; kernels are stored as ``dtype``, all else in float32.

    If writing fails, the files that were there before are still there, whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.to(dtype if value.dim() > 1 else torch.float32).contiguous()
        for name, value in model.state_dict().items()
    }
    # Renamed one by one: the folder may hold more, such as a model card.
    with TemporaryDirectory(prefix=".", dir=folder) as partial:
        save_file(tensors, Path(partial, WEIGHTS), metadata={"format": "pt"})
        Path(partial, CONFIG).write_text(json.dumps(asdict(model.config), indent=2) + "\n")
        for name in (WEIGHTS, CONFIG):
            Path(partial, name).replace(folder / name)


def read_config(folder: Path) -> InpainterConfig:
    """The options of the model in a folder of weights.

    Raises:
        InputError: one of its two files is missing, or the configuration is unreadable.
    """
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            run = "; this is a run, whose weights are in its folder weights"
            raise InputError(
                f"weights: expected a folder with {WEIGHTS} and {CONFIG}, found no {folder / name}"
                + (run if (folder / "weights" / name).is_file() else "")
            )
    try:
        options = json.loads((folder / CONFIG).read_text())
        options["mean"] = tuple(options["mean"])
        return InpainterConfig(**options)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"weights: {folder} does not hold a vinpaint model: {error}") from error


def load_pretrained(weights: str | Path | None = None) -> VideoInpainter:
    """Read a model, in float32 and evaluation mode.

    Args:
        weights: a folder, or one of :data:`SHIPPED`; ``None``: the first of them.

    Raises:
        InputError: the folder, one of its two files, or a tensor in them is missing or unreadable.
    """
    folder = weights_folder(weights)
    model = VideoInpainter(read_config(folder))
    try:
        state = {name: value.float() for name, value in load_file(folder / WEIGHTS).items()}
        model.load_state_dict(state)
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"weights: {folder} does not hold a vinpaint model: {error}") from error
    return model.eval()
