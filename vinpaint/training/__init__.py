# SPDX-License-Identifier: Apache-2.0
"""Training: synthetic holes, the data set of shots, and the loop."""

from vinpaint.training.data import ShotDataset, decode_shots
from vinpaint.training.loop import TrainConfig, train

__all__ = ["ShotDataset", "TrainConfig", "decode_shots", "train"]
