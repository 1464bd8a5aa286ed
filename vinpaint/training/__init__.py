# SPDX-License-Identifier: Apache-2.0
"""Training: footage, synthetic holes, the data set, and the loop."""

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
