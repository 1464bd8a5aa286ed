# SPDX-License-Identifier: Apache-2.0
"""The plan: shots, neighbourhoods, working sizes."""

from __future__ import annotations

import numpy as np
import pytest

from vinpaint.errors import InputError
from vinpaint.video.windows import CONTEXT, WORKING_HOLE, WORKING_PIXELS, make_plan


def _masks(
    count: int, *boxes: tuple[int, int, int, int], size: tuple[int, int] = (480, 640)
) -> list[np.ndarray]:
    mask = np.zeros(size, np.uint8)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = 255
    return [mask] * count


def test_cuts_end_shots() -> None:
    plan = make_plan(_masks(10, (100, 100, 20, 20)), 10, cuts=[4, 7])
    assert [(s.start, s.stop) for s in plan.shots] == [(0, 4), (4, 7), (7, 10)]
    assert plan.frames == plan.hole_frames == 10


def test_cuts_outside_the_clip_are_ignored() -> None:
    plan = make_plan(_masks(5, (0, 0, 8, 8)), 5, cuts=[0, 5, 9])
    assert [(s.start, s.stop) for s in plan.shots] == [(0, 5)]


def test_a_region_is_the_hole_and_its_context() -> None:
    (region,) = make_plan(_masks(1, (200, 300, 20, 30)), 1).shots[0].regions
    assert (region.top, region.left) == (200 - CONTEXT, 300 - CONTEXT)
    assert (region.height, region.width) == (20 + 2 * CONTEXT, 30 + 2 * CONTEXT)
    assert not region.resized


def test_a_region_stays_inside_the_frame() -> None:
    (region,) = make_plan(_masks(1, (0, 610, 20, 30)), 1).shots[0].regions
    assert (region.top, region.left) == (0, 610 - CONTEXT)
    assert (region.height, region.width) == (20 + CONTEXT, 30 + CONTEXT)


def test_distant_holes_are_several_regions_and_near_ones_are_one() -> None:
    far = make_plan(_masks(1, (10, 10, 20, 20), (400, 500, 20, 20)), 1).shots[0].regions
    near = make_plan(_masks(1, (100, 100, 20, 20), (150, 160, 20, 20)), 1).shots[0].regions
    assert len(far) == 2
    assert len(near) == 1


def test_regions_never_overlap_and_cover_every_hole() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        boxes = [
            (int(t), int(left), 12, 15) for t, left in rng.integers(0, (460, 620), size=(6, 2))
        ]
        mask = _masks(1, *boxes)[0]
        covered = np.zeros(mask.shape, int)
        for region in make_plan([mask], 1).shots[0].regions:
            covered[region.box] += 1
        assert covered.max() == 1
        assert covered[mask > 0].min() == 1


def test_a_region_follows_the_hole_over_the_whole_shot() -> None:
    masks = [np.zeros((480, 640), np.uint8) for _ in range(3)]
    for i, mask in enumerate(masks):
        mask[200:220, 100 + 100 * i : 120 + 100 * i] = 1
    plan = make_plan(masks, 3)
    regions = plan.shots[0].regions
    for mask in masks:
        covered = np.zeros(mask.shape, bool)
        for region in regions:
            covered[region.box] = True
        assert covered[mask > 0].all()


def test_a_thick_hole_is_computed_at_a_reduced_size() -> None:
    (region,) = make_plan(_masks(1, (100, 100, 128, 256)), 1).shots[0].regions
    scale = region.working_height / region.height
    assert region.resized
    assert abs(128 * scale - WORKING_HOLE) < 4


def test_a_long_thin_hole_is_computed_at_full_size() -> None:
    (region,) = make_plan(_masks(1, (300, 20, 30, 600)), 1).shots[0].regions
    assert not region.resized


def test_the_working_size_is_bounded() -> None:
    (region,) = (
        make_plan(_masks(1, (10, 10, 2140, 20), (10, 10, 20, 3800), size=(2160, 3840)), 1)
        .shots[0]
        .regions
    )
    assert region.working_height * region.working_width <= 1.02 * WORKING_PIXELS


def test_empty_and_full_masks_are_counted() -> None:
    empty, full = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    plan = make_plan([empty, full, empty], 3)
    assert (plan.hole_frames, plan.all_hole) == (1, False)
    assert make_plan([empty, empty], 2).shots[0].regions == ()
    assert make_plan([full, full], 2, cuts=[1]).all_hole


@pytest.mark.parametrize(("count", "came"), [(4, "got 4"), (6, "more than 5")])
def test_another_number_of_masks_is_an_error(count: int, came: str) -> None:
    with pytest.raises(InputError, match=came):
        make_plan(_masks(count, (0, 0, 4, 4)), 5)


def test_no_frames_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one frame"):
        make_plan([], 0)
