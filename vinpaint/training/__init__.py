# SPDX-License-Identifier: Apache-2.0
"""Training: footage, synthetic holes, the data set, and the loop."""

from vinpaint.training.data import (
    ClipDataset,
    DataConfig,
    ShotDataset,
    decode_shots,
    prepare_data,
)
from vinpaint.training.loop import TrainConfig, train

__all__ = [
    "ClipDataset",
    "DataConfig",
    "ShotDataset",
    "TrainConfig",
    "decode_shots",
    "prepare_data",
    "train",
]
