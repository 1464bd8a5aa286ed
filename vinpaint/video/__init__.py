# SPDX-License-Identifier: Apache-2.0
"""Video in, video out: clips, masks, shots, writers, previews. Knows nothing of networks."""

from vinpaint.errors import InputError, InputWarning
from vinpaint.video.masks import Masks, feather_weights, open_mask
from vinpaint.video.preview import ContactSheet, side_by_side
from vinpaint.video.reader import Clip, ClipInfo, Frame, Thumbnail, open_clip
from vinpaint.video.shots import find_cuts
from vinpaint.video.writer import ClipWriter, FolderWriter, RgbVideoWriter, VideoWriter, open_writer

__all__ = [
    "Clip",
    "ClipInfo",
    "ClipWriter",
    "ContactSheet",
    "FolderWriter",
    "Frame",
    "InputError",
    "InputWarning",
    "Masks",
    "RgbVideoWriter",
    "Thumbnail",
    "VideoWriter",
    "feather_weights",
    "find_cuts",
    "open_clip",
    "open_mask",
    "open_writer",
    "side_by_side",
]
