# SPDX-License-Identifier: Apache-2.0
"""Synthetic holes: seeded, bounded, of the shape and motion that their kind promises."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from media import write_image

from vinpaint.errors import InputError
from vinpaint.training.holes import (
    KINDS,
    HoleConfig,
    check_masks,
    free_form,
    moving_box,
    moving_object,
    never_seen,
    random_hole,
    real_mask,
    remaining,
    static_box,
    text,
)


def _holes(kind, *, frames=8, height=96, width=120, config=None, count=30):
    for seed in range(count):
        yield kind(np.random.default_rng(seed), frames, height, width, config)


def _middles(hole):
    return np.array([np.argwhere(plane).mean(axis=0) for plane in hole])


@pytest.mark.parametrize(
    "kind", [static_box, moving_box, free_form, moving_object, text, random_hole]
)
def test_holes_are_seeded_and_leave_something_known(kind) -> None:
    for seed, hole in enumerate(_holes(kind, frames=5, height=40, width=48)):
        assert hole.shape == (5, 40, 48)
        assert hole.dtype == bool
        assert not hole.all(axis=(1, 2)).any()
        assert np.array_equal(hole, kind(np.random.default_rng(seed), 5, 40, 48))
        assert hole.any()


def test_the_papers_box_has_the_papers_sides() -> None:
    for hole in _holes(static_box, frames=3, height=128, width=128, count=50):
        rows, columns = hole[0].any(1).sum(), hole[0].any(0).sum()
        assert 48 <= rows <= 64
        assert 48 <= columns <= 64
        assert hole[0].sum() == rows * columns
        assert (hole == hole[0]).all()


@pytest.mark.parametrize("kind", [*KINDS])
def test_random_holes_keep_the_bounds_of_their_area(kind: str, tmp_path: Path) -> None:
    write_image(tmp_path / "mask.png", np.full((9, 9), 255, np.uint8))
    config = HoleConfig(shares={kind: 1}, area=(0.02, 0.2), masks=str(tmp_path))
    areas = [hole.mean(axis=(1, 2)) for hole in _holes(random_hole, config=config)]
    assert np.min(areas) >= 0.02
    assert np.max(areas) <= 0.2
    assert len(np.unique(np.mean(areas, axis=1))) > 3  # not the box that is the last resort


def test_thin_strokes_stay_thin_or_are_drawn_again() -> None:
    shares, thin = {"free_form": 1}, (0.03, 0.03)
    for seed in range(200):
        hole = random_hole(
            np.random.default_rng(seed),
            24,
            64,
            64,
            HoleConfig(shares=shares, stroke=thin, area=(0.0002, 0.2)),
        )
        assert hole.any(axis=(1, 2)).all()
        assert hole.mean() < 0.1  # strokes, not the paper's box


def test_what_a_pan_uncovers_does_not_remain() -> None:
    hole = np.zeros((5, 12, 20), bool)
    hole[:, 3:9, 6:14] = True
    still = np.zeros((5, 2), int)
    assert np.array_equal(never_seen(hole, still), hole)
    panned = never_seen(
        hole, np.array([[0, 2 * t] for t in range(5)])
    )  # 8 columns: all of it comes out
    assert not panned.any()
    slow = never_seen(hole, np.array([[0, t] for t in range(5)]))
    assert [plane[5].nonzero()[0].tolist() for plane in slow] == [
        [10 - t, 11 - t, 12 - t, 13 - t] for t in range(5)
    ]


def test_holes_that_remain_are_parts_of_holes() -> None:
    shares = [hole.mean() for hole in _holes(remaining)]
    assert 0 < np.mean(shares) < np.mean([hole.mean() for hole in _holes(static_box)])


def test_shares_say_how_often_a_kind_is_drawn() -> None:
    config = HoleConfig(shares={"box": 3, "moving_box": 1, "text": 0}, area=(0.1, 0.3))
    still = [
        bool((hole == hole[0]).all()) for hole in _holes(random_hole, config=config, count=200)
    ]
    assert 0.65 < np.mean(still) < 0.85


def test_moving_objects_move_and_change_their_shape() -> None:
    for hole in _holes(moving_object, frames=12):
        areas = hole.sum(axis=(1, 2))
        assert (areas > 0).all()
        middles = _middles(hole)
        assert np.hypot(*(middles[-1] - middles[0])) > 8
        steps = np.hypot(*np.diff(middles, axis=0).T)
        assert steps.max() < 20  # a path, not jumps
        assert len(np.unique(areas)) > 1


def test_moving_boxes_cross_in_a_straight_line() -> None:
    for hole in _holes(moving_box):
        middles = _middles(hole)
        straight = np.linspace(middles[0], middles[-1], len(middles))
        assert np.abs(middles - straight).max() <= 1


def test_text_is_thin_and_stays_or_scrolls() -> None:
    scrolling = 0
    for hole in _holes(text, frames=16):
        thickest = max(
            cv2.distanceTransform(plane.astype(np.uint8), cv2.DIST_L2, 5).max() for plane in hole
        )
        assert thickest <= 0.05 * 96
        assert (hole.mean(axis=(1, 2)) < 0.25).all()
        if (hole != hole[0]).any():
            scrolling += 1
            shift = next(
                s for s in range(1, 50) if np.array_equal(hole[-1, :, :-s], hole[0, :, s:])
            )
            assert shift >= 7
    assert 3 <= scrolling <= 15


def test_real_masks_keep_their_outline(tmp_path: Path) -> None:
    mask = np.zeros((60, 60, 3), np.uint8)
    mask[10:50, 20:40] = (128, 0, 0)  # as in DAVIS, objects in colours
    write_image(tmp_path / "object.png", mask)
    config = HoleConfig(shares={"mask": 1}, masks=str(tmp_path), object=(0.3, 0.4))
    for hole in _holes(real_mask, config=config):
        for plane in hole:
            rows, columns = plane.any(1).sum(), plane.any(0).sum()
            assert plane.sum() == rows * columns
            assert rows <= 0.4 * 96 + 2
        assert np.hypot(*(_middles(hole)[-1] - _middles(hole)[0])) > 8


def test_wrong_options_are_named(tmp_path: Path) -> None:
    for options, message in (
        ({"shares": {"hexagon": 1}}, r"no such kind of hole: 'hexagon'; expected box, "),
        ({"shares": {"box": -1}}, "0 or more of box, got -1"),
        ({"shares": {}}, "a share above 0 of at least one kind"),
        ({"side": (0.5, 1.2)}, r"side: a hole of 1.2 times the crop"),
        ({"area": (0.5, 0.4)}, r"area: expected 0 < least <= greatest, got 0.5, 0.4"),
        ({"shares": {"mask": 1}}, "masks: expected a folder"),
        ({"shares": {"mask": 1}, "masks": str(tmp_path)}, "holds no pictures"),
    ):
        with pytest.raises(InputError, match=message):
            HoleConfig(**options)


def test_masks_that_cannot_be_used_are_named_and_passed_over(tmp_path: Path) -> None:
    black, broken = tmp_path / "black.png", tmp_path / "broken.png"
    write_image(black, np.zeros((9, 9), np.uint8))
    broken.write_bytes(b"no picture")
    write_image(tmp_path / "object.png", np.full((9, 9), 255, np.uint8))
    unusable = check_masks(str(tmp_path))
    assert set(unusable) == {black, broken}
    assert "black.png shows no object" in unusable[black]
    assert "broken.png cannot be read" in unusable[broken]
    config = HoleConfig(shares={"mask": 1}, masks=str(tmp_path))
    for hole in _holes(real_mask, config=config):
        assert hole.any()


def test_a_folder_without_a_usable_mask_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "black.png", np.zeros((9, 9), np.uint8))
    config = HoleConfig(shares={"mask": 1}, masks=str(tmp_path))
    with pytest.raises(InputError, match=r"none of 1 masks can be used: .*black\.png shows no obj"):
        check_masks(str(tmp_path))
    with pytest.raises(InputError, match=r"black\.png shows no object"):
        random_hole(np.random.default_rng(0), 4, 40, 40, config)
