# SPDX-License-Identifier: Apache-2.0
"""Training: footage, synthetic holes, the data set, and the loop."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vinpaint.training.config import RunConfig, StageConfig, TrainConfig, load_config
    from vinpaint.training.data import ClipDataset, DataConfig, prepare_data
    from vinpaint.training.interruption import Stopped
    from vinpaint.training.loop import train
    from vinpaint.training.losses import LossConfig

__all__ = [
    "ClipDataset",
    "DataConfig",
    "LossConfig",
    "RunConfig",
    "StageConfig",
    "Stopped",
    "TrainConfig",
    "load_config",
    "prepare_data",
    "train",
]

_HOMES = {
    "ClipDataset": "data",
    "DataConfig": "data",
    "LossConfig": "losses",
    "RunConfig": "config",
    "StageConfig": "config",
    "Stopped": "interruption",
    "TrainConfig": "config",
    "load_config": "config",
    "prepare_data": "data",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a process that decodes footage needs no torch."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
