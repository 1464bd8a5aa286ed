# SPDX-License-Identifier: Apache-2.0
"""Follows an object through a clip, from the frames on which it was painted to all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.masking.follow_parts import parts_of
from vinpaint.masking.follow_step import Follower
from vinpaint.propagation.flow import dis_flow

Mask = NDArray[np.uint8]  # (h, w), 0 or 255
Share = NDArray[np.uint8]  # (h, w), 255 times how surely a pixel is the object


class Frames(Protocol):
    """A clip: an array (F, h, w, 3), mapped from a file or not, or a list of pictures."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


ENOUGH = 102
"""From this share on a pixel is the object: of 0.35, 0.4, 0.45, 0.5 and 0.55 the best on clips with masks drawn by hand."""


@dataclass(frozen=True)
class _Way:
    """A run of frames to follow: from a painted frame over ``frames``, in this order."""

    painted: int
    frames: range


def follow(
    frames: Frames,
    painted: Mapping[int, NDArray[np.uint8]],
    *,
    cuts: Sequence[int] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Mask]:
    """Bring the masks of the painted frames to all frames.

    Args:
        frames: the clip, uint8 (h, w, 3) RGB each; asked for one by one, forwards and backwards.
            About 480 pixels on the long side are a good size: more costs time, and gains little.
        painted: frame index to mask, uint8 (h, w), nonzero on the object. May be rough.
        cuts: first frame of every shot but the first. Nothing is followed across a cut: a shot
            without a painted frame stays empty.
        progress: called with (done, total) after every frame that was followed. What it raises
            ends the work.

    Returns:
        One mask a frame, uint8 (h, w), 255 on the object and 0 elsewhere: the painted ones as
        they were painted, empty ones where the object is out of sight.

    Between two painted frames the object is followed from both, and the nearer one weighs more.
    What lies well apart in a mask, up to three objects, is followed each on its own.

    Raises:
        InputError: nothing painted, an empty mask, one past the clip's end or of another size, a
            cut past the clip's end.
    """
    shape = _check(frames, painted, cuts)
    masks = [np.zeros(shape, np.uint8)] * len(frames)
    for index, mask in painted.items():
        masks[index] = np.where(mask > 0, np.uint8(255), np.uint8(0))
    spans = list(_spans(len(frames), sorted(painted), cuts))
    total = sum(len(way.frames) for ways in spans for way in ways)
    done = 0
    for ways in spans:
        for index, share in _merged(frames, masks, ways):
            if share is not None:
                masks[index] = np.where(share >= ENOUGH, np.uint8(255), np.uint8(0))
            done += 1
            if progress is not None:
                progress(done, total)
    return masks


def _merged(
    frames: Frames, masks: Sequence[Mask], ways: Sequence[_Way]
) -> Iterator[tuple[int, Share | None]]:
    """Every frame with its share; None while only the first of both ways has come by."""
    if len(ways) == 1:
        yield from _followed(frames, masks[ways[0].painted], ways[0])
        return
    forth, back = ways
    parts: dict[int, Share] = {}
    for index, share in _followed(frames, masks[forth.painted], forth):
        parts[index] = _part(share, index, forth)
        yield index, None
    for index, share in _followed(frames, masks[back.painted], back):
        part = parts.pop(index)
        yield index, part + np.minimum(_part(share, index, back), 255 - part)


def _followed(frames: Frames, mask: Mask, way: _Way) -> Iterator[tuple[int, Share]]:
    if not way.frames:
        return
    painted = np.asarray(frames[way.painted])
    followers = [Follower(painted, part) for part in parts_of(mask > 0)]
    before = _gray(painted)
    for index in way.frames:
        picture = np.asarray(frames[index])
        gray = _gray(picture)
        back, forth = dis_flow(gray, before), dis_flow(before, gray)
        before = gray
        share = np.maximum.reduce([one.step(picture, back, forth) for one in followers])
        yield index, np.rint(255 * share).astype(np.uint8)


def _gray(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)


def _part(share: Share, index: int, way: _Way) -> Share:
    """What it adds to the mean of both ways: the more, the nearer the painted frame."""
    weight = 1 - abs(index - way.painted) / (len(way.frames) + 1)
    return np.rint(weight * share).astype(np.uint8)


def _spans(count: int, painted: list[int], cuts: Sequence[int]) -> Iterator[list[_Way]]:
    """What lies before, between and after a shot's painted frames: one way to go, or both."""
    starts = [0, *sorted(set(cuts) - {0}), count]
    for start, end in pairwise(starts):
        inside = [index for index in painted if start <= index < end]
        if not inside:
            continue
        yield [_Way(inside[0], range(inside[0] - 1, start - 1, -1))]
        for left, right in pairwise(inside):
            forth = _Way(left, range(left + 1, right))
            yield [forth, _Way(right, range(right - 1, left, -1))]
        yield [_Way(inside[-1], range(inside[-1] + 1, end))]


def _check(
    frames: Frames, painted: Mapping[int, NDArray[np.uint8]], cuts: Sequence[int]
) -> tuple[int, int]:
    """The size of the frames, (h, w). Raises InputError for what :func:`follow` cannot use."""
    count = len(frames)
    if not count:
        raise InputError("frames: expected at least one frame, got none; give the clip's frames")
    if not painted:
        raise InputError(
            "painted: expected the mask of at least one frame, got none; paint the object on one"
        )
    shape = np.shape(frames[0])
    if len(shape) != 3 or shape[2] != 3:
        raise InputError(
            f"frames: expected pictures of the shape (h, w, 3), got {shape}; give them as RGB"
        )
    height, width = shape[:2]
    for index, mask in painted.items():
        if not 0 <= index < count:
            raise InputError(
                f"painted: expected frames from 0 to {count - 1}, got frame {index}; "
                "paint a frame of the clip"
            )
        if mask.shape != (height, width):
            found = " x ".join(str(side) for side in mask.shape[::-1])
            raise InputError(
                f"painted: expected the mask of frame {index} to be {width} x {height} like the "
                f"frames, got {found}; bring it to their size"
            )
        if not mask.any():
            raise InputError(
                f"painted: expected some of frame {index} to be painted, got an empty mask; "
                "paint the object, or leave the frame out"
            )
    for cut in cuts:
        if not 0 <= cut < count:
            raise InputError(
                f"cuts: expected frames from 0 to {count - 1}, got {cut}; "
                "give the first frame of each shot"
            )
    return height, width
