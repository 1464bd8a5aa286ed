# SPDX-License-Identifier: Apache-2.0
"""Between the picture as it is stored in a file and the picture as a player shows it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import av
    import numpy.typing as npt


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a picture down: transpose first, then mirror.

    ``matrix`` is the file's own display matrix (nine integers), kept to be written again.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False
    matrix: tuple[int, ...] | None = None

    @classmethod
    def of_frame(cls, frame: av.VideoFrame) -> Orientation:
        """The orientation that the display matrix of a decoded frame asks for.

        A matrix that is no multiple of 90 degrees is kept but not applied, as players do.
        """
        side_data: Any = frame.side_data
        try:
            matrix = struct.unpack("=9i", bytes(side_data["DISPLAYMATRIX"])[:36])
        except KeyError:
            return cls()
        # A stored point (p, q) is shown at (a p + c q, b p + d q).
        a, b, _, c, d = matrix[:5]
        if not b and not c:
            return cls(False, a < 0, d < 0, matrix)
        if not a and not d:
            return cls(True, c < 0, b < 0, matrix)
        return cls(matrix=matrix)

    @property
    def rotation(self) -> int:
        """Clockwise degrees from the stored to the shown picture: 0, 90, 180 or 270.

        A mirror image has no such number of its own; it counts as the rotation that is left
        when its horizontal mirroring is taken away.
        """
        if self.transpose:
            return 270 if self.flip_y else 90
        return 180 if self.flip_y else 0

    def to_display(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of a stored picture, (H, W) or (H, W, C), as it is shown."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def to_stored(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A view of a shown picture, (H, W) or (H, W, C), as it is stored."""
        picture = picture[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return picture.swapaxes(0, 1) if self.transpose else picture
