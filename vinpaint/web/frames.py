# SPDX-License-Identifier: Apache-2.0
"""The frames of a clip, small, on disk, so that any of them can be shown at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vinpaint.video.reader import Clip
    from vinpaint.web.jobs import Told

SIDE = 960
"""Long side of the largest frame shown, in pixels."""

_QUALITY = 90


class FrameStore:
    """JPEG pictures in one file.

    Attributes:
        times: seconds after the first frame, of every frame.
        size: width and height of the pictures.
    """

    def __init__(self, path: Path, clip: Clip, told: Told, what: str) -> None:
        """Read all of ``clip``; ``told`` hears ``what`` is done. Raises what the clip or the disk raises."""
        self._path = path
        self._ends = [0]
        self.times: list[float] = []
        info = clip.info
        width = round(info.width * min(1.0, SIDE / max(info.width, info.height)))
        with path.open("wb") as file:
            for picture in clip.thumbnails(width):
                told(what, picture.index + 1, clip.likely_frame_count or 0)
                height, width = picture.image.shape[:2]
                self.size = (width, height)
                options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
                file.write(cv2.imencode(".jpg", picture.image, options)[1].tobytes())
                self._ends.append(file.tell())
                self.times.append(picture.time)

    def __len__(self) -> int:
        return len(self.times)

    def at(self, index: int) -> NDArray[np.uint8]:
        """A frame, uint8 (H, W, 3), red green blue."""
        begin, end = self._ends[index : index + 2]
        with self._path.open("rb") as file:
            file.seek(begin)
            data = np.frombuffer(file.read(end - begin), np.uint8)
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert bgr is not None
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
