# SPDX-License-Identifier: Apache-2.0
"""A logo, watermark or time stamp found by itself: edges that stay while the content moves.

An overlay's edges keep their place and direction in every frame; those of what is filmed do not, as
long as it moves. So the median over time of the picture's gradient shows an overlay's edges, and how
many frames agree with it tells them from chance. Groups of such edges are overlays if what lies
around them moves. Their shape then comes out of the mean picture: its gradient at these edges alone,
integrated from 0 at some distance, is how far the overlay lifts or darkens each pixel.

Where camera and content stand still nothing can be told: what is shown over a scene that stays as
it is may be missed, and so may what lies on the frame's very border, or is as large as a good part
of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from vinpaint.masking.logo_edges import SEEN_OTHER, Bools, Edges, Floats, Picture, gather, measure

if TYPE_CHECKING:
    from collections.abc import Iterable

_FEWEST = 20  # in fewer frames chance alone keeps many edges in their places
_SMALLEST = 64  # pixels of the frame's shorter side
_LARGEST = 0.12  # of the frame, all overlays together; more is a scene taken for one

# Gradients are in grey levels a pixel, changes in grey levels. What follows was chosen on a dozen
# clips with logos drawn in, and on a hundred without (film, sport, street, faces, hand-held), so
# that nothing was found on those.
_WEAK_STRENGTH = 2.0  # beside seeds
_WEAK_KEPT = 0.6  # beside seeds: the strokes that most digits share

# Edges are grouped twice, those that stay best first: what they make up is then not joined to edges
# of the scene beside it that stay by chance, and the less steady ones still are looked at. A group
# takes in what was found within if it is about as dense: the changing digits of a time stamp.
_LEVELS = (0.97, 0.8)
_AS_DENSE = 0.7

_SMALLEST_OVERLAY = 0.0008  # of the frame, counting seeds: less than four small letters
_CLEAR_OVERLAY = 0.0025  # of the frame: needed where some of the scene stands still
_WIDEST_OVERLAY = 0.12  # of the frame, its box
_DENSITY = 0.18  # seeds in the box of an overlay; chance finds are thin: 0.05 to 0.2
_LEAST_SPREAD = 0.18  # a camera that pans keeps lines in place that run along its way

# How much of the scene's texture stands still, and what an overlay must then be like. A camera that
# moves leaves 0 to 0.02; logos have 0.89 and up of their frames agree, chance finds up to 0.88.
_MOVING = 0.02
_MOVING_KEPT = 0.88
_HALF_STILL = 0.14
_SURE_KEPT = 0.95
_RING_STILL = 0.12  # at most, of what lies around an overlay
_RING_OTHER = 0.5  # at least, where more of the scene stands still: else a part of it
_OFTEN = 0.15  # share of the frames in which that shows something else

_STEP = 0.28  # of an overlay's usual lift, where its shape ends; half would lose its soft edges
_LEAST_LIFT = 2.0  # grey levels


def find_logo(frames: Iterable[Picture]) -> Picture:
    """Where an overlay lies that is shown throughout: uint8 (H, W), 255 there and 0 elsewhere.

    frames: (H, W, 3) RGB uint8, in order, spread over the clip; about 100 are plenty, and of more
    than 96 some are only averaged. All of one size; at least 20, or nothing is found.

    Finds opaque and semi-transparent logos, text, and time stamps whose digits change in fixed
    places. All zeros if there is none, or if it cannot be told: see the module. Memory is bounded,
    however many the frames. Raises ValueError without frames, or if they differ in size.
    """
    sample = gather(frames)
    mask = np.zeros(sample.mean.shape[:2], np.uint8)
    if sample.planes.shape[1] < _FEWEST or min(sample.planes.shape[2:]) < _SMALLEST:
        return mask
    edges = measure(sample.planes)
    for overlay in _overlays(edges):
        _add_shape(mask, sample.mean, overlay)
    if np.count_nonzero(mask) > _LARGEST * mask.size:
        mask[:] = 0
    return mask


@dataclass(frozen=True, eq=False)
class _Group:
    """Seeds that lie together: perhaps an overlay. Shares are of what is named."""

    mask: Bools  # (h, w), the seeds
    box: tuple[int, int, int, int]  # left, top, width, height
    share: float  # seeds in the frame
    kept: float  # mean of its seeds
    density: float  # seeds in the box
    spread: float  # of its edges' directions: 0 for a straight line, 0.5 if all are alike
    surrounded: float  # mean of its seeds
    ring_still: float  # of the ring around it
    ring_other: float  # of the ring around it, that shows something else now and then
    weak: Bools  # weak edges that hang together with it


def _overlays(edges: Edges) -> list[_Group]:
    steady, any_kept = (_groups(edges, level) for level in _LEVELS)
    still_share = _still_share(edges, steady)
    overlays: list[_Group] = []
    for group in steady + any_kept:
        if not _stands_out(group, still_share):
            continue
        inner = [overlay for overlay in overlays if (overlay.mask & group.mask).any()]
        if all(group.density > _AS_DENSE * overlay.density for overlay in inner):
            overlays = [overlay for overlay in overlays if overlay not in inner] + [group]
    return overlays


def _still_share(edges: Edges, groups: list[_Group]) -> float:
    """Share of the scene's texture that stands still, without what may be an overlay."""
    still = edges.still.copy()
    for group in groups:
        left, top, width, height = group.box
        still[top : top + height, left : left + width] = False
    return int(np.count_nonzero(still)) / max(1, int(np.count_nonzero(edges.textured)))


def _stands_out(group: _Group, still_share: float) -> bool:
    """Whether a group stays while all else moves. still_share: of the scene's texture."""
    if group.ring_still > _RING_STILL or group.spread < _LEAST_SPREAD:
        return False
    if still_share < _MOVING:
        return group.kept > _MOVING_KEPT
    moving = still_share < _HALF_STILL and group.share > _CLEAR_OVERLAY
    around = group.ring_other > _RING_OTHER and group.surrounded > SEEN_OTHER
    return group.kept > _SURE_KEPT and (moving or around)


def _groups(edges: Edges, level: float) -> list[_Group]:
    shape = edges.strength.shape
    seeds = edges.seeds & (edges.kept > level)
    short = min(shape)
    gap = max(2, round(0.012 * short))
    # Closing alone would join what is near the frame's border to it.
    padded = cv2.copyMakeBorder(
        seeds.astype(np.uint8), 2 * gap, 2 * gap, 2 * gap, 2 * gap, cv2.BORDER_CONSTANT
    )
    bridge = np.ones((2 * gap + 1, 4 * gap + 1), np.uint8)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, bridge)
    closed = closed[2 * gap : -2 * gap, 2 * gap : -2 * gap]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    groups = []
    for label in range(1, count):
        left, top, width, height = (int(value) for value in stats[label][:4])
        window = (slice(top, top + height), slice(left, left + width))
        own = seeds[window] & (labels[window] == label)
        number = int(np.count_nonzero(own))
        area = width * height
        if number < _SMALLEST_OVERLAY * seeds.size or area > _WIDEST_OVERLAY * seeds.size:
            continue
        if number < _DENSITY * area:
            continue
        mask = np.zeros(shape, bool)
        mask[window] = own
        ring = _ring(mask, max(6, round(0.04 * short)))
        groups.append(
            _Group(
                mask,
                (left, top, width, height),
                number / seeds.size,
                float(edges.kept[mask].mean()),
                number / area,
                _spread(edges.direction[:, mask]),
                float(edges.surrounded[mask].mean()),
                float(edges.still[ring].mean()),
                float((edges.other[ring] > _OFTEN).mean()),
                _weak(edges, mask, ring, gap),
            )
        )
    return groups


def _spread(gradients: Floats) -> float:
    """The weaker of the two main directions' share in gradients (2, N)."""
    weaker, stronger = np.linalg.eigvalsh(gradients.astype(np.float64) @ gradients.T)
    return float(weaker / (weaker + stronger))


def _weak(edges: Edges, seeds: Bools, ring: Bools, gap: int) -> Bools:
    """Fainter edges that hang together with seeds, stronger than what the scene leaves around."""
    scene = float(np.quantile(edges.strength[ring], 0.99)) if ring.any() else 0.0
    weak = (edges.strength > max(_WEAK_STRENGTH, scene)) & (edges.kept > _WEAK_KEPT)
    reach = np.ones((2 * gap + 1, 6 * gap + 1), np.uint8)
    near = cv2.dilate(seeds.astype(np.uint8), reach) > 0
    return np.asarray(seeds | (weak & near))


def _ring(mask: Bools, width: int) -> Bools:
    """What lies around the hull of a mask, ``width`` pixels wide, a little apart."""
    hull = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(cv2.findNonZero(mask.astype(np.uint8))), 1)
    outer, inner = (
        cv2.dilate(hull, np.ones((2 * grown + 1, 2 * grown + 1), np.uint8)) > 0
        for grown in (3 + width, 3)
    )
    return np.asarray(outer & ~inner)


def _add_shape(mask: Picture, mean: Floats, group: _Group) -> None:
    """Draw the shape of an overlay into the mask, from the clip's mean picture (H, W, 3)."""
    rows, columns = _box_around(group, mask.shape)
    part = mean[rows, columns]
    support = _support(group, mask.shape)[rows, columns]
    lift = np.max([np.abs(_integrated(part[..., c], support)) for c in range(3)], axis=0)
    peak = np.quantile(lift[support], 0.9)
    inside = _filled(support)
    shape = ((lift > max(_LEAST_LIFT, _STEP * peak)) & inside).astype(np.uint8)
    closed = cv2.morphologyEx(shape, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    mask[rows, columns][closed > 0] = 255


def _box_around(group: _Group, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The group's box in a frame of ``shape``, with room around it."""
    sy, sx = shape[0] / group.mask.shape[0], shape[1] / group.mask.shape[1]
    left, top, width, height = group.box
    pad = max(8, height)
    return (
        slice(max(0, int((top - pad) * sy)), min(shape[0], int((top + height + pad) * sy))),
        slice(max(0, int((left - pad) * sx)), min(shape[1], int((left + width + pad) * sx))),
    )


def _support(group: _Group, shape: tuple[int, ...]) -> Bools:
    """The edges of the overlay in a frame of ``shape``, wide enough for their slopes."""
    support = cv2.dilate(group.weak.astype(np.uint8), np.ones((3, 3), np.uint8))
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(support, size, interpolation=cv2.INTER_LINEAR) > 0)


def _filled(support: Bools) -> Bools:
    """With what it encloses: an overlay has an edge all around."""
    outlines, _ = cv2.findContours(
        support.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    filled = np.zeros(support.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return np.asarray(filled > 0)


def _integrated(picture: Floats, support: Bools) -> Floats:
    """The picture whose gradient is the given one's in ``support`` and 0 elsewhere; 0 at its edge."""
    right, below = np.zeros_like(picture), np.zeros_like(picture)
    right[:, :-1] = np.diff(picture, axis=1) * support[:, :-1]
    below[:-1] = np.diff(picture, axis=0) * support[:-1]
    laplacian = right + below
    laplacian[:, 1:] -= right[:, :-1]
    laplacian[1:] -= below[:-1]
    height, width = picture.shape
    along_y = 2 * np.cos(np.pi * np.arange(1, height + 1) / (height + 1)) - 2
    along_x = 2 * np.cos(np.pi * np.arange(1, width + 1) / (width + 1)) - 2
    waves = _sine_transform(_sine_transform(laplacian).T).T / (along_y[:, None] + along_x)
    scale = 4 * (height + 1) * (width + 1)
    return (_sine_transform(_sine_transform(waves).T).T / scale).astype(np.float32)


def _sine_transform(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """DST-I of each row, by the Fourier transform of its odd continuation."""
    length = rows.shape[1]
    odd = np.zeros((rows.shape[0], 2 * length + 2))
    odd[:, 1 : length + 1] = rows
    odd[:, length + 2 :] = -rows[:, ::-1]
    return -np.fft.rfft(odd, axis=1).imag[:, 1 : length + 1]
