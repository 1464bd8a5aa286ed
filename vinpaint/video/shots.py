# SPDX-License-Identifier: Apache-2.0
"""Where a clip is cut from one shot to the next."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt

# Frames on each side that a frame's change is measured against.
_WINDOW = 2
# Cuts in quicker succession than this many frames are flicker or flashes.
_SHORTEST = 5


def find_cuts(images: Iterable[npt.NDArray[np.uint8]]) -> list[int]:
    """The index of the first frame of every shot but the first.

    images: the frames in order, (h, w, 3) BGR, small (256 pixels wide will do). Only a few are
    held at a time.
    """
    # Here, because the package brings its command line and video backends with it.
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(min_scene_len=_SHORTEST, window_width=_WINDOW)
    rate = Fraction(25)
    cuts = []
    position = 0
    image = None
    for image in images:
        # The detector compares a frame with its neighbours on both sides. The first and the
        # last frame are repeated, so that cuts near the ends have neighbours too.
        for _ in range(1 if position else 1 + _WINDOW):
            cuts += detector.process_frame(FrameTimecode(position, rate), image)
            position += 1
    for _ in range(_WINDOW if image is not None else 0):
        cuts += detector.process_frame(FrameTimecode(position, rate), image)
        position += 1
    return [cut.frame_num - _WINDOW for cut in cuts]
