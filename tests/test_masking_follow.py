# SPDX-License-Identifier: Apache-2.0
"""Following an object: drawn clips whose true masks are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.masking.follow import follow
from vinpaint.masking.follow_parts import parts_of

SIZE = 96, 144  # height, width
COUNT = 10


def texture(seed: int, size: tuple[int, int], colors: tuple[int, int]) -> NDArray[np.uint8]:
    """Coarse coloured noise: what flow holds on to."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(*colors, (size[0] // 6 + 2, size[1] // 6 + 2, 3)).astype(np.float32)
    return (
        cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    )


def clip(
    centers: list[tuple[float, float]],
    *,
    pan: float = 0,
    radii: list[tuple[float, float]] | None = None,
    seed: int = 0,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A warm textured disc over a cold texture; centers: x and y in every frame."""
    height, width = SIZE
    wide = texture(seed, (height, 3 * width), (20, 130))
    wide[..., 0] //= 2
    skin = texture(seed + 1, (64, 64), (100, 255))
    skin[..., 2] //= 3
    frames, masks = [], []
    for index, (x, y) in enumerate(centers):
        left = width + round(pan * index)
        frame = wide[:, left : left + width].copy()
        radius = radii[index] if radii else (18, 18)
        shift = np.float32(
            [
                [radius[0] / 18, 0, x - 32 * radius[0] / 18],
                [0, radius[1] / 18, y - 32 * radius[1] / 18],
            ]
        )
        moved = cv2.warpAffine(skin, shift, (width, height), borderMode=cv2.BORDER_REFLECT)
        rows, columns = np.mgrid[:height, :width]
        mask = ((columns - x) / radius[0]) ** 2 + ((rows - y) / radius[1]) ** 2 <= 1
        frame[mask] = moved[mask]
        frames.append(cv2.GaussianBlur(frame, (3, 3), 0))
        masks.append(mask)
    return np.stack(frames), np.stack(masks)


def straight(start: tuple[float, float], step: tuple[float, float]) -> list[tuple[float, float]]:
    return [(start[0] + step[0] * i, start[1] + step[1] * i) for i in range(COUNT)]


def overlap(a: NDArray, b: NDArray) -> float:
    a, b = a > 0, b > 0
    return (a & b).sum() / max(1, (a | b).sum())


def assert_follows(found: list[NDArray], truth: NDArray, least: float = 0.85) -> None:
    assert len(found) == len(truth)
    for mask, true in zip(found, truth, strict=True):
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
        assert overlap(mask, true) > least


@pytest.mark.parametrize("step", [(0, 0), (4, 1), (-7, 0)])
def test_a_moving_disc(step):
    start = (40, 40) if step[0] >= 0 else (110, 50)
    frames, truth = clip(straight(start, step))
    assert_follows(follow(frames, {0: truth[0].astype(np.uint8)}), truth)


def test_a_disc_that_stretches():
    radii = [(18 + i, 18 - 0.5 * i) for i in range(COUNT)]
    frames, truth = clip(straight((50, 45), (3, 0)), radii=radii)
    assert_follows(follow(frames, {0: truth[0].astype(np.uint8)}), truth)


def test_a_camera_that_pans():
    frames, truth = clip(straight((60, 45), (1, 0)), pan=6)
    assert_follows(follow(frames, {0: truth[0].astype(np.uint8)}), truth)


def test_both_directions():
    frames, truth = clip(straight((40, 45), (5, 0)))
    found = follow(frames, {5: truth[5].astype(np.uint8)})
    assert_follows(found, truth)
    assert np.array_equal(found[5] > 0, truth[5])


def test_a_rough_painting():
    frames, truth = clip(straight((40, 45), (4, 0)))
    rough = cv2.dilate(
        truth[0].astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    )
    found = follow(frames, {0: rough})
    assert np.array_equal(found[0] > 0, rough > 0)
    assert_follows(found[1:], truth[1:], 0.65)


def test_two_painted_frames_come_out_as_painted():
    frames, truth = clip(straight((40, 45), (5, 0)))
    painted = {0: truth[0] * np.uint8(1), 9: np.roll(truth[9], 2, axis=1) * np.uint8(200)}
    found = follow(frames, painted)
    for index, mask in painted.items():
        assert np.array_equal(found[index], np.where(mask > 0, 255, 0))
    assert_follows(found[1:9], truth[1:9], 0.8)


def test_nothing_is_followed_across_a_cut():
    one, truth = clip(straight((40, 45), (3, 0)))
    other, _ = clip(straight((40, 45), (3, 0)), seed=7)
    frames = np.concatenate([other, one, other])
    painted = {12: truth[2].astype(np.uint8)}
    found = follow(frames, painted, cuts=[10, 20])
    assert not any(mask.any() for mask in found[:10] + found[20:])
    assert_follows(found[10:20], truth)


def test_two_objects_that_part():
    frames, truth = clip(straight((30, 30), (0, 3)))
    others, other_truth = clip(straight((90, 60), (4, -2)))
    frames[other_truth], truth = others[other_truth], truth | other_truth
    assert_follows(follow(frames, {0: truth[0].astype(np.uint8)}), truth)


@pytest.mark.parametrize(
    ("discs", "count"),
    [
        ([(20, 20, 10)], 1),
        ([(20, 20, 10), (80, 60, 10)], 2),
        ([(20, 20, 10), (43, 20, 10)], 1),  # near: pieces of one object
        ([(20, 20, 10), (80, 60, 2)], 1),  # a speck
        ([(20, 20, 10), (80, 20, 9), (20, 80, 8), (80, 80, 7)], 3),
    ],
)
def test_what_lies_apart_is_told_apart(discs, count):
    mask = np.zeros((100, 100), np.uint8)
    for x, y, radius in discs:
        cv2.circle(mask, (x, y), radius, 1, -1)
    parts = parts_of(mask > 0)
    assert len(parts) == count
    np.testing.assert_array_equal(np.sum(parts, 0), mask)


def test_an_object_that_leaves():
    frames, truth = clip(straight((90, 45), (9, 0)))
    assert not truth[-1].any()
    found = follow(frames, {0: truth[0].astype(np.uint8)})
    assert_follows(found[:5], truth[:5], 0.75)
    assert not found[-1].any()


def test_an_object_that_comes_back():
    here = straight((60, 45), (1, 0))
    frames, truth = clip([*here[:4], (500, 45), (500, 45), *here[6:]])
    found = follow(frames, {0: truth[0].astype(np.uint8)})
    assert not found[4].any()
    assert overlap(found[-1], truth[-1]) > 0.7


def test_progress_counts_every_step():
    frames, truth = clip(straight((40, 45), (3, 0)))
    seen: list[tuple[int, int]] = []
    painted = {i: truth[i].astype(np.uint8) for i in (2, 6)}
    follow(frames, painted, progress=lambda done, total: seen.append((done, total)))
    # Two before, three after, and the three between from both sides.
    assert seen == [(i + 1, 11) for i in range(11)]


def test_progress_may_end_the_work():
    frames, truth = clip(straight((40, 45), (3, 0)))

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        follow(frames, {0: truth[0].astype(np.uint8)}, progress=stop)


def test_a_single_frame():
    frames, truth = clip(straight((40, 45), (3, 0)))
    found = follow(frames[:1], {0: truth[0].astype(np.uint8)})
    assert [mask.tolist() for mask in found] == [np.where(truth[0], 255, 0).tolist()]


def test_a_tiny_clip_and_a_tiny_mask():
    frames = np.zeros((3, 5, 7, 3), np.uint8)
    mask = np.zeros((5, 7), np.uint8)
    mask[2, 3] = 1
    assert [found.shape for found in follow(frames, {1: mask})] == [(5, 7)] * 3


BLACK = np.zeros((3, 40, 60, 3), np.uint8)
MASK = np.ones((40, 60), np.uint8)


@pytest.mark.parametrize(
    ("frames", "painted", "cuts", "message"),
    [
        (BLACK[:0], {0: MASK}, (), "frames: expected at least one"),
        (BLACK[..., 0], {0: MASK}, (), r"frames: expected pictures of the shape \(h, w, 3\)"),
        (BLACK, {}, (), "painted: expected the mask of at least one frame, got none"),
        (BLACK, {3: MASK}, (), "painted: expected frames from 0 to 2, got frame 3"),
        (BLACK, {-1: MASK}, (), "painted: expected frames from 0 to 2, got frame -1"),
        (BLACK, {1: MASK.T}, (), "painted: expected the mask of frame 1 to be 60 x 40.*40 x 60"),
        (BLACK, {1: 0 * MASK}, (), "painted: expected some of frame 1.*empty mask"),
        (BLACK, {1: MASK}, (3,), "cuts: expected frames from 0 to 2, got 3"),
    ],
)
def test_what_cannot_be_used(frames, painted, cuts, message):
    with pytest.raises(InputError, match=message):
        follow(frames, painted, cuts=cuts)
