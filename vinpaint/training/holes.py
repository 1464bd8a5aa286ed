# SPDX-License-Identifier: Apache-2.0
"""Synthetic holes for training: seeded (F, H, W) boolean arrays, ``True`` in the hole."""

from __future__ import annotations

import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.training.camera import smooth_path
from vinpaint.video.images import EXTENSIONS, read_picture

Hole = NDArray[np.bool_]
Drawing = NDArray[np.uint8]

TRIES = 10
"""Holes that are drawn before one of the right area is given up for a plain box."""


PAN = 0.2
"""Share of the frame's sides by which the camera pans to either side at most, for holes of kind ``remaining``."""


@dataclass(frozen=True)
class HoleConfig:
    """Which holes are cut. Lengths are shares of the frame's side.

    Attributes:
        shares: how often each kind is drawn, relative to the others; the kinds are those of
            :data:`KINDS`.
        side: of a box; the paper's by default.
        stroke: width of a free-form stroke.
        object: height of a moving object.
        letter: height of the letters of a text.
        area: least and greatest share of a frame that is hole, in every frame of a clip.
        masks: folder of pictures of real objects, white or coloured on black, for ``mask``. One
            that cannot be read or shows no object is passed over; :func:`check_masks` names it.
    """

    shares: dict[str, float] = field(
        default_factory=lambda: {
            "box": 0.4,
            "moving_box": 0.15,
            "free_form": 0.15,
            "object": 0.2,
            "text": 0.1,
        }
    )
    side: tuple[float, float] = (0.375, 0.5)
    stroke: tuple[float, float] = (0.05, 0.22)
    object: tuple[float, float] = (0.3, 0.9)
    letter: tuple[float, float] = (0.06, 0.16)
    area: tuple[float, float] = (0.002, 0.5)
    masks: str | None = None

    def __post_init__(self) -> None:
        for kind, share in self.shares.items():
            if kind not in KINDS:
                raise InputError(
                    f"holes.shares: no such kind of hole: {kind!r}; expected {', '.join(KINDS)}"
                )
            if share < 0:
                raise InputError(f"holes.shares: expected 0 or more of {kind}, got {share}")
        if not sum(self.shares.values()) > 0:
            raise InputError("holes.shares: expected a share above 0 of at least one kind")
        for name in ("side", "stroke", "object", "letter", "area"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise InputError(f"holes.{name}: expected 0 < least <= greatest, got {low}, {high}")
            if high >= 1:
                raise InputError(
                    f"holes.{name}: a hole of {high} times the crop is not smaller than the crop; "
                    "expected less than 1"
                )
        if self.shares.get("mask"):
            if self.masks is None:
                raise InputError(
                    "holes.masks: expected a folder of masks for the holes of kind 'mask'"
                )
            _mask_files(self.masks)


def random_hole(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    config: HoleConfig | None = None,
) -> Hole:
    """One of the kinds, of an area within bounds; some of every frame stays known."""
    config = config or DEFAULT
    kinds = list(config.shares)
    ends = np.cumsum(list(config.shares.values()))
    kind = KINDS[kinds[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]]
    for _ in range(TRIES):
        hole = kind(rng, frames, height, width, config)
        areas = hole.reshape(frames, -1).sum(axis=1) / (height * width)
        if config.area[0] <= areas.min() and areas.max() <= config.area[1]:
            return hole
    # The mean of the bounds cannot be missed, however narrow they are and whatever the kind.
    share = np.sqrt(np.mean(config.area))
    h, w = max(1, int(share * height)), max(1, int(share * width))
    return _filled(frames, height, width, (height - h) // 2, (width - w) // 2, h, w)


def static_box(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    config: HoleConfig | None = None,
) -> Hole:
    """The paper's hole: one box, at the same place in every frame."""
    return _filled(frames, height, width, *_box(rng, height, width, config or DEFAULT))


def moving_box(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    config: HoleConfig | None = None,
) -> Hole:
    """A box that crosses the frame in a straight line."""
    _, _, h, w = _box(rng, height, width, config or DEFAULT)
    ends = rng.uniform(0, (height - h, width - w), size=(2, 2))
    path = np.linspace(ends[0], ends[1], frames).round().astype(int)
    hole = np.zeros((frames, height, width), dtype=bool)
    for plane, (top, left) in zip(hole, path, strict=True):
        plane[top : top + h, left : left + w] = True
    return hole


def free_form(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    config: HoleConfig | None = None,
) -> Hole:
    """Thick strokes and blobs that drift together through the frame."""
    config = config or DEFAULT
    canvas = np.zeros((2 * height, 2 * width), dtype=np.uint8)
    side = min(height, width)
    for _ in range(rng.integers(1, 4)):
        points = rng.uniform((0.25, 0.25), (0.75, 0.75), size=(rng.integers(2, 5), 2))
        line = (points * (2 * width, 2 * height)).astype(np.int32)
        stroke = max(1, int(rng.uniform(*config.stroke) * side))
        cv2.polylines(canvas, [line], False, 1, stroke, cv2.LINE_8)
    drift = rng.uniform(-0.25, 0.25, size=(2, 2)) * (height, width)
    path = np.linspace(drift[0], drift[1], frames) + np.array((height / 2, width / 2))
    hole = np.stack([canvas[t : t + height, w : w + width] for t, w in path.round().astype(int)])
    return hole.view(bool)


def moving_object(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    config: HoleConfig | None = None,
) -> Hole:
    """A blob that changes its shape, a polygon, or a walking figure, on a smooth path."""
    config = config or DEFAULT
    size = rng.uniform(*config.object) * height
    path = _wandering(rng, frames, height, width)
    draw = (_draw_blobs, _draw_blobs, _draw_figures)[rng.integers(3)]
    hole = np.zeros((frames, height, width), dtype=np.uint8)
    draw(rng, hole, path, size)
    return hole.view(bool)


def text(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    config: HoleConfig | None = None,
) -> Hole:
    """Words or a logo in thin strokes: still, or a line that scrolls through the frame."""
    config = config or DEFAULT
    letter = max(5.0, rng.uniform(*config.letter) * min(height, width))
    thickness = max(1, round(letter * rng.uniform(0.06, 0.16)))
    form = rng.integers(4)
    if form == 0:
        return _scrolling(rng, frames, height, width, letter, thickness)
    lines = [_words(rng, letter, thickness) for _ in range(rng.integers(1, 3))]
    sign = _logo(rng, letter, thickness) if form == 1 else _stacked(lines)
    if sign.shape[1] > 0.9 * width or sign.shape[0] > 0.9 * height:
        sign = sign[: int(0.9 * height), : int(0.9 * width)]
    margin = rng.uniform(0.02, 0.1, 2) * (height, width)
    room = np.array((height, width)) - sign.shape
    at_end = rng.integers(2, size=2)
    top, left = np.where(at_end, room - np.minimum(margin, room), np.minimum(margin, room)).astype(
        int
    )
    plane = np.zeros((height, width), dtype=np.uint8)
    plane[top : top + sign.shape[0], left : left + sign.shape[1]] = sign
    return np.repeat(plane.view(bool)[None], frames, axis=0)


def real_mask(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    config: HoleConfig | None = None,
) -> Hole:
    """The outline of a real object, from a picture, that moves and changes its size smoothly."""
    config = config or DEFAULT
    assert config.masks is not None, "checked by HoleConfig"
    files = _mask_files(config.masks)
    outline = _first_outline(files, int(rng.integers(len(files))))
    scale = smooth_path(rng.uniform(*config.object, 3), frames) * height / outline.shape[0]
    path = _wandering(rng, frames, height, width)
    if rng.random() < 0.5:
        outline = np.ascontiguousarray(outline[:, ::-1])
    middle = np.array(outline.shape[::-1]) / 2
    hole = np.empty((frames, height, width), dtype=np.uint8)
    for plane, factor, centre in zip(hole, scale, path, strict=True):
        shift = centre - factor * middle
        matrix = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])
        plane[:] = cv2.warpAffine(outline, matrix, (width, height), flags=cv2.INTER_NEAREST)
    return hole.view(bool)


def remaining(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    config: HoleConfig | None = None,
) -> Hole:
    """What propagation leaves of a hole of another kind when the camera pans: what no frame has seen."""
    kinds = (static_box, moving_box, free_form, moving_object)
    hole = kinds[rng.integers(len(kinds))](rng, frames, height, width, config)
    stops = rng.uniform(-PAN, PAN, size=(3, 2)) * (height, width)
    return never_seen(hole, smooth_path(stops, frames).round().astype(int))


def never_seen(hole: Hole, path: NDArray[np.int_]) -> Hole:
    """The pixels of a hole whose place in the scene is hidden or out of view in every frame.

    Args:
        hole: (F, H, W).
        path: (F, 2), row and column in the scene of every frame's top left pixel.
    """
    _, height, width = hole.shape
    path = path - path.min(axis=0)
    hidden = np.ones(path.max(axis=0) + np.array([height, width]), dtype=bool)
    views = [hidden[y : y + height, x : x + width] for y, x in path]
    for view, plane in zip(views, hole, strict=True):
        np.logical_and(view, plane, out=view)
    return np.stack([plane & view for view, plane in zip(views, hole, strict=True)])


KINDS: dict[str, Callable[[np.random.Generator, int, int, int, HoleConfig | None], Hole]] = {
    "box": static_box,
    "moving_box": moving_box,
    "free_form": free_form,
    "object": moving_object,
    "text": text,
    "mask": real_mask,
    "remaining": remaining,
}
"""Every kind of hole by the name that :class:`HoleConfig` calls it."""

DEFAULT = HoleConfig()


def _filled(frames: int, height: int, width: int, top: int, left: int, h: int, w: int) -> Hole:
    hole = np.zeros((frames, height, width), dtype=bool)
    hole[:, top : top + h, left : left + w] = True
    return hole


def _box(
    rng: np.random.Generator, height: int, width: int, config: HoleConfig
) -> tuple[int, int, int, int]:
    share = rng.uniform(*config.side, size=2)
    h, w = max(1, round(share[0] * height)), max(1, round(share[1] * width))
    return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


def _wandering(
    rng: np.random.Generator, frames: int, height: int, width: int
) -> NDArray[np.float64]:
    """(F, 2): x and y of a middle that travels at least a fifth of the frame."""
    while True:
        start, bend, end = rng.uniform(0.2, 0.8, size=(3, 2))
        if np.hypot(*(end - start)) >= 0.2:
            break
    bend = (start + end) / 2 + 0.5 * (bend - 0.5)
    return smooth_path(np.array([start, bend, end]) * (width, height), frames)


def _draw_blobs(
    rng: np.random.Generator, hole: Drawing, path: NDArray[np.float64], size: float
) -> None:
    """A closed curve whose radius is a sum of waves that turn at speeds of their own."""
    corners = int(rng.choice([5, 7, 48, 48, 48]))  # few make a polygon
    waves = np.arange(1, 5)[:, None]
    strength = rng.uniform(0, 0.5, (4, 1)) / waves
    phase, turn = rng.uniform(0, 2 * np.pi, (4, 1)), rng.uniform(-2, 2, (4, 1))
    stretch = rng.uniform(0.5, 1.0, 2)
    around = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    circle = np.stack([np.cos(around), np.sin(around)], axis=1)
    for plane, centre, t in zip(hole, path, np.linspace(0, 1, len(hole)), strict=True):
        radius = 1 + (strength * np.cos(waves * around + phase + turn * t)).sum(axis=0)
        curve = centre + 0.5 * size * stretch * radius[:, None] * circle
        cv2.fillPoly(plane, [_fixed(curve)], 1, shift=SHIFT)


def _draw_figures(
    rng: np.random.Generator, hole: Drawing, path: NDArray[np.float64], size: float
) -> None:
    """A walking person: head, body, and limbs that swing."""
    steps, phase = rng.uniform(1, 3) * len(hole) / 16, rng.uniform(0, 2 * np.pi)
    broad = rng.uniform(0.8, 1.5)
    head, body = 0.075 * size, (0.105 * broad * size, 0.2 * size)
    limb = max(1, round(0.075 * broad * size))
    for plane, centre, t in zip(hole, path, np.linspace(0, 1, len(hole)), strict=True):
        swing = 0.5 * np.sin(2 * np.pi * steps * t + phase)
        hip, shoulder = centre + np.array([0, 0.05 * size]), centre - (0, 0.26 * size)
        for joint, length, angle in (
            (hip, 0.42, swing),
            (hip, 0.42, -swing),
            (shoulder, 0.34, 0.8 * swing + 0.2),
            (shoulder, 0.34, -0.8 * swing - 0.2),
        ):
            end = joint + length * size * np.array([np.sin(angle), np.cos(angle)])
            cv2.line(plane, _fixed(joint).tolist(), _fixed(end).tolist(), 1, limb, shift=SHIFT)
        for middle, axes in ((centre - (0, 0.12 * size), body), (centre - (0, 0.41 * size), head)):
            widths = _fixed(np.broadcast_to(axes, 2)).tolist()
            cv2.ellipse(plane, _fixed(middle).tolist(), widths, 0, 0, 360, 1, -1, shift=SHIFT)


SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws with."""


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return (points * (1 << SHIFT)).round().astype(np.int32)


LETTERS = np.array(list(string.ascii_letters + string.digits))

FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)


def _words(rng: np.random.Generator, letter: float, thickness: int) -> Drawing:
    """One line of text, 1 in the strokes, cut close."""
    count = int(rng.integers(1, 4))
    words = ["".join(rng.choice(LETTERS, rng.integers(2, 9))) for _ in range(count)]
    font = FONTS[rng.integers(len(FONTS))]
    scale = letter / cv2.getTextSize("H", font, 1, 1)[0][1]
    (w, h), below = cv2.getTextSize(" ".join(words), font, scale, thickness)
    drawing = np.zeros((h + below + thickness, w + thickness), dtype=np.uint8)
    cv2.putText(drawing, " ".join(words), (0, h), font, scale, 1, thickness, cv2.LINE_8)
    return drawing


def _stacked(lines: list[Drawing]) -> Drawing:
    width = max(line.shape[1] for line in lines)
    return np.concatenate(
        [np.pad(line, ((0, 0), (0, width - line.shape[1]))) for line in lines], axis=0
    )


def _logo(rng: np.random.Generator, letter: float, thickness: int) -> Drawing:
    """A ring, a frame or a star in outline, with a bar or a letter in it."""
    side = round(2.5 * letter)
    drawing = np.zeros((side, side), dtype=np.uint8)
    middle, radius = side // 2, side // 2 - thickness
    form = rng.integers(3)
    if form == 0:
        cv2.circle(drawing, (middle, middle), radius, 1, thickness)
    elif form == 1:
        cv2.rectangle(
            drawing, (thickness, side // 5), (side - thickness, 4 * side // 5), 1, thickness
        )
    else:
        angles = np.linspace(0, 4 * np.pi, 5, endpoint=False)  # every second corner: a pentagram
        star = middle + radius * np.stack([np.sin(angles), -np.cos(angles)], axis=1)
        cv2.polylines(drawing, [star.round().astype(np.int32)], True, 1, thickness)
    if form < 2 and rng.random() < 0.5:
        cv2.line(
            drawing, (middle - radius // 2, middle), (middle + radius // 2, middle), 1, thickness
        )
    elif form < 2:
        scale = 0.8 * letter / cv2.getTextSize("H", FONTS[0], 1, 1)[0][1]
        initial = str(rng.choice(LETTERS))
        (w, h), _ = cv2.getTextSize(initial, FONTS[0], scale, thickness)
        cv2.putText(
            drawing, initial, (middle - w // 2, middle + h // 2), FONTS[0], scale, 1, thickness
        )
    return drawing


def _scrolling(
    rng: np.random.Generator, frames: int, height: int, width: int, letter: float, thickness: int
) -> Hole:
    """A line of text as long as the frame, at its top or its bottom, that runs to the left."""
    pace = rng.uniform(0.5, 3.0)
    length = width + round(pace * (frames - 1)) + 1
    parts: list[Drawing] = []
    while sum(part.shape[1] for part in parts) < length:
        words = _words(rng, letter, thickness)
        parts.append(np.pad(words, ((0, 0), (0, round(letter)))))
    tall = max(part.shape[0] for part in parts)
    line = np.concatenate([np.pad(p, ((tall - p.shape[0], 0), (0, 0))) for p in parts], axis=1)
    line = line[: int(0.9 * height)]
    room = height - line.shape[0]
    top = round(room * (rng.uniform(0, 0.15) + 0.85 * rng.integers(2)))
    hole = np.zeros((frames, height, width), dtype=np.uint8)
    for plane, left in zip(hole, (pace * np.arange(frames)).round().astype(int), strict=True):
        plane[top : top + line.shape[0]] = line[:, left : left + width]
    return hole.view(bool)


def check_masks(folder: str) -> dict[Path, str]:
    """The masks of a folder that cannot be used, and why.

    Raises:
        InputError: none can be used.
    """
    files = _mask_files(folder)
    with ThreadPoolExecutor() as pool:  # pictures are decoded without Python's lock
        reasons = dict(zip(files, pool.map(_why_unusable, files), strict=True))
    unusable = {path: reason for path, reason in reasons.items() if reason is not None}
    if len(unusable) == len(files):
        raise InputError(f"none of {len(files)} masks can be used: {unusable[files[0]]}")
    return unusable


def _why_unusable(mask: Path) -> str | None:
    try:
        _read_outline(mask)
    except InputError as error:
        return str(error)
    return None


def _first_outline(files: list[Path], start: int) -> Drawing:
    """Of ``files[start]``, or if it cannot be used of the next that can."""
    for path in files[start:] + files[:start]:
        try:
            return _outline(path)
        except InputError as error:
            reason = error
    raise reason


@lru_cache(maxsize=4)
def _mask_files(folder: str) -> list[Path]:
    files = [p for p in sorted(Path(folder).rglob("*")) if p.suffix.lower() in EXTENSIONS]
    if not files:
        raise InputError(
            f"holes.masks: {folder} holds no pictures; expected {', '.join(EXTENSIONS)} files"
        )
    return files


def _read_outline(path: Path) -> Drawing:
    """A mask, cut close: 1 where it is bright or coloured."""
    picture = read_picture(path, "holes.masks")
    inside = (picture if picture.ndim == 2 else picture[..., :3].max(axis=2)) >= 128
    if not inside.any():
        raise InputError(f"holes.masks: {path} shows no object; expected white or colour on black")
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    cut = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(cut).view(np.uint8)


_outline = lru_cache(maxsize=256)(_read_outline)
