# SPDX-License-Identifier: Apache-2.0
"""Masks without drawing every frame: a logo found, boxes read from a file, an object followed."""

from vinpaint.masking.boxes import read_boxes, read_subtitles
from vinpaint.masking.follow import follow
from vinpaint.masking.logo import find_logo
from vinpaint.masking.making import MaskReport, MaskSources, make_mask

__all__ = [
    "MaskReport",
    "MaskSources",
    "find_logo",
    "follow",
    "make_mask",
    "read_boxes",
    "read_subtitles",
]
