# SPDX-License-Identifier: Apache-2.0
"""Real pixels first: on clips whose hidden pixels are known, they come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.nn.prefill import harmonic_fill
from vinpaint.propagation import Carried, Propagator, propagator
from vinpaint.propagation.flow import Flow, Gray, dis_flow
from vinpaint.propagation.track import working_size
from vinpaint.video.windows import make_plan

Clip = NDArray[np.uint8]  # (F, H, W, 3)
Hole = NDArray[np.bool_]  # (F, H, W)

HEIGHT, WIDTH = 96, 128


def _texture(height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """Blotches of several sizes, 40 to 215: something that optical flow can follow."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for size in (4, 8, 16):
        coarse = rng.random((height // size + 2, width // size + 2, 3), dtype=np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = picture.min(), picture.max()
    return 40 + 175 * (picture - low) / (high - low)


def _filmed(
    frames: int,
    move: Callable[[int], NDArray[np.float64]],
    height: int = HEIGHT,
    width: int = WIDTH,
    seed: int = 0,
) -> Clip:
    """A still scene under a camera; ``move(t)`` takes the scene's places (3, 3) to those of frame t."""
    scene = _texture(3 * height, 3 * width, seed)
    centred = np.array([[1, 0, -width], [0, 1, -height], [0, 0, 1]], np.float64)
    pictures = [
        cv2.warpPerspective(scene, move(t) @ centred, (width, height), flags=cv2.INTER_CUBIC)
        for t in range(frames)
    ]
    return np.stack(pictures).round().clip(0, 255).astype(np.uint8)


def _still(_: int) -> NDArray[np.float64]:
    return np.eye(3)


def _pan(t: int) -> NDArray[np.float64]:
    return np.array([[1, 0, -2.3 * t], [0, 1, 0.7 * t], [0, 0, 1]], np.float64)


def _about_centre(angle: float, scale: float) -> NDArray[np.float64]:
    turned = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), angle, scale)
    return np.vstack([turned, [0, 0, 1]])


def _zoom(t: int) -> NDArray[np.float64]:
    return _about_centre(0, 1.02**t)


def _turn(t: int) -> NDArray[np.float64]:
    return _about_centre(1.2 * t, 1)


def _boxes(frames: int, places: Callable[[int], tuple[int, int]], side: int = 24) -> Hole:
    hole = np.zeros((frames, HEIGHT, WIDTH), bool)
    for t in range(frames):
        top, left = places(t)
        hole[t, top : top + side, left : left + side] = True
    return hole


def _moving(frames: int) -> Hole:
    return _boxes(frames, lambda t: (30, 8 + 4 * t))


def _standing(frames: int) -> Hole:
    return _boxes(frames, lambda _: (36, 20))


def _carry(
    truth: Clip, hole: Hole, cuts: Sequence[int] = (), **options: object
) -> tuple[Clip, Hole, NDArray[np.float32]]:
    """What comes out when the hole is black: frames, what remains, confidence."""
    black = truth.copy()
    black[hole] = 0
    masks = hole.view(np.uint8)
    plan = make_plan(masks, len(masks), cuts)
    found = list(Propagator(**options)(zip(black, masks, strict=True), plan))
    assert len(found) == len(truth)
    images, remaining, confidence = (np.stack(part) for part in zip(*found, strict=True))
    assert images.dtype == truth.dtype
    assert np.array_equal(images[~hole], truth[~hole])
    assert (confidence[~hole] == 1).all()
    remains = remaining > 0
    assert not (remains & ~hole).any()
    assert np.array_equal(confidence == 0, remains)
    return images, remains, confidence


def _far(images: Clip, truth: Clip, where: Hole) -> float:
    return float(np.abs(images.astype(int) - truth)[where].mean())


def test_under_a_still_camera_what_was_hidden_comes_back() -> None:
    truth, hole = _filmed(24, _still), _moving(24)
    images, remains, confidence = _carry(truth, hole)
    assert not remains.any()
    assert _far(images, truth, hole) < 1.5
    assert confidence[hole].mean() > 0.9


@pytest.mark.parametrize(
    ("move", "hole"),
    [
        (_pan, _boxes(30, lambda _: (36, 52))),
        (_pan, _moving(30)[:, :, ::-1].copy()),
        (_zoom, _boxes(30, lambda _: (60, 84))),
        (_turn, _boxes(30, lambda _: (60, 84))),
    ],
    ids=["pan", "pan and hole", "zoom", "rotation"],
)
def test_a_moving_camera_uncovers_what_was_hidden(
    move: Callable[[int], NDArray[np.float64]], hole: Hole
) -> None:
    truth = _filmed(30, move)
    images, remains, _ = _carry(truth, hole)
    carried, seen = hole & ~remains, _ever_seen(move, hole)
    assert (carried & seen).sum() > 0.9 * seen.sum()
    assert (carried & ~seen).sum() < 0.1 * hole.sum()
    assert _far(images, truth, carried) < 0.4 * _far(_smooth(truth, hole), truth, carried)


def _ever_seen(move: Callable[[int], NDArray[np.float64]], hole: Hole) -> Hole:
    """Hole pixels whose place in the scene is known, well away from hole and border, in another frame."""
    near = np.stack([cv2.dilate(h.astype(np.uint8), np.ones((9, 9))) for h in hole])
    blocked = np.pad(near[:, 4:-4, 4:-4], ((0, 0), (4, 4), (4, 4)), constant_values=1) > 0
    seen = np.zeros_like(hole)
    for t in range(len(hole)):
        rows, columns = np.nonzero(hole[t])
        places = np.stack([columns, rows, np.ones(len(rows))])
        for s in range(len(hole)):
            x, y, w = move(s) @ np.linalg.inv(move(t)) @ places
            x, y = np.rint(x / w).astype(int), np.rint(y / w).astype(int)
            inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
            seen[t, rows[inside], columns[inside]] |= ~blocked[s, y[inside], x[inside]]
    return seen


def _smooth(truth: Clip, hole: Hole) -> Clip:
    clip = torch.from_numpy(truth).permute(3, 0, 1, 2)[None].float()
    filled = harmonic_fill(clip, torch.from_numpy(hole)[None, None].float())
    return filled[0].permute(1, 2, 3, 0).round().byte().numpy()


def test_what_nobody_ever_saw_remains() -> None:
    truth = _filmed(12, _still)
    images, remains, _ = _carry(truth, _standing(12))
    assert np.array_equal(remains, _standing(12))
    assert (images[remains] == 0).all()


def test_nothing_is_carried_across_a_cut() -> None:
    first, second = _filmed(12, _still, seed=1), 255 - _filmed(12, _still, seed=2) // 2
    truth = np.concatenate([first, second])
    hole = _boxes(24, lambda t: (30, 8 + 4 * (t % 12)))
    hole[12:, 30:54, 8:40] = True  # never seen in the second shot, always in the first
    hole[:12, 30:54, 8:20] = False
    images, remains, _ = _carry(truth, hole, cuts=[12])
    assert remains[12:, 32:52, 12:36].all()
    assert _far(images, truth, hole & ~remains) < 3
    apart = [_carry(truth[part], hole[part])[:2] for part in (slice(0, 12), slice(12, 24))]
    assert np.array_equal(images, np.concatenate([a for a, _ in apart]))
    assert np.array_equal(remains, np.concatenate([b for _, b in apart]))


@pytest.mark.parametrize(
    "light",
    [
        [1.0] * 11 + [1.18] + [1.0] * 12,
        [1.0 - 0.03 * t for t in range(24)],
    ],
    ids=["flash", "fade"],
)
def test_what_is_carried_is_as_bright_as_its_frame(light: list[float]) -> None:
    truth = _filmed(24, _still)
    gain = np.array(light)[:, None, None, None]
    truth = (truth * gain).round().clip(0, 255).astype(np.uint8)
    hole = _moving(24)
    images, remains, _ = _carry(truth, hole)
    carried = hole & ~remains
    assert carried.sum() > 0.98 * hole.sum()
    per_frame = [abs((images[t].astype(float) - truth[t])[carried[t]].mean()) for t in range(24)]
    assert max(per_frame) < 2.5
    assert _far(images, truth, carried) < 3


def test_a_frame_that_is_all_hole_takes_nothing_wrong() -> None:
    truth, hole = _filmed(16, _still), _moving(16)
    hole[7] = True
    images, remains, _ = _carry(truth, hole)
    others = hole & ~remains
    others[7] = False
    assert _far(images, truth, others) < 3
    carried = ~remains[7]
    assert carried.mean() > 0.9
    # As bright as it was: there is no smooth fill to mix in.
    assert abs((images[7].astype(float) - truth[7])[carried].mean()) < 0.5


def test_a_clip_that_is_all_hole_is_left_alone() -> None:
    truth = _filmed(3, _still)
    images, remains, _ = _carry(truth, np.ones((3, HEIGHT, WIDTH), bool))
    assert remains.all()
    assert (images == 0).all()


def test_one_frame_is_left_alone_and_two_give_to_each_other() -> None:
    truth = _filmed(2, _still)
    hole = _boxes(2, lambda t: (30, 20 + 40 * t))
    _, remains, _ = _carry(truth[:1], hole[:1])
    assert np.array_equal(remains, hole[:1])
    images, remains, _ = _carry(truth, hole)
    assert not remains.any()
    assert _far(images, truth, hole) < 1.5


def test_frames_without_a_hole_are_the_same_arrays() -> None:
    truth, hole = _filmed(9, _still), _moving(9)
    hole[4] = False
    masks = hole.view(np.uint8)
    frames = list(truth)
    found = list(Propagator()(zip(frames, masks, strict=True), make_plan(masks, 9)))
    assert found[4].image is frames[4]


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, hole = _filmed(40, _pan), _moving(40)[:, :, ::-1].copy()
    whole = _carry(truth, hole, reach=9)
    monkeypatch.setattr(propagator, "CHUNK_FRAMES", chunk)
    for one, other in zip(whole, _carry(truth, hole, reach=9), strict=True):
        assert np.array_equal(one, other)


def test_little_is_read_ahead_and_nothing_twice() -> None:
    truth, hole = _filmed(60, _still), _boxes(60, lambda t: (30, 8 + 4 * (t % 20)))
    masks = hole.view(np.uint8)
    read = 0

    def frames() -> Iterator[tuple[Clip, NDArray[np.uint8]]]:
        nonlocal read
        for pair in zip(truth, masks, strict=True):
            read += 1
            yield pair

    ahead = propagator.CHUNK_FRAMES + 8 + propagator.CONTEXT_PAIRS
    for done, _ in enumerate(Propagator(reach=8)(frames(), make_plan(masks, 60))):
        assert read <= done + ahead
    assert read == 60


def test_nothing_comes_from_beyond_reach() -> None:
    truth, hole = _filmed(30, _still), _standing(30)
    hole[0] = False
    _, remains, _ = _carry(truth, hole, reach=6)
    assert not remains[1:7].any()
    assert np.array_equal(remains[7:], hole[7:])


def test_sixteen_bits_stay_sixteen_bits() -> None:
    eight, hole = _filmed(12, _still), _moving(12)
    rng = np.random.default_rng(0)
    truth = eight.astype(np.uint16) * 256 + rng.integers(0, 256, (1, *eight.shape[1:]), np.uint16)
    images, remains, _ = _carry(truth, hole)
    assert not remains.any()
    assert _far(images, truth, hole) < 1.5 * 257
    assert (images[hole] % 256 > 0).mean() > 0.9


def test_a_large_picture_is_filled_at_its_own_size() -> None:
    height, width = 480, 640
    rows, columns = working_size(height, width)
    assert rows * columns < 0.5 * height * width
    # Fine lines, which the working size does not show: only the picture itself can give them back.
    stripes = (np.indices((height, width)).sum(0) % 4 < 2) * 40
    truth = (_filmed(14, _still, height, width) // 2 + stripes[..., None]).astype(np.uint8)
    hole = np.zeros((14, height, width), bool)
    for t in range(14):
        hole[t, 60:400, 150 + 10 * t : 230 + 10 * t] = True
    images, remains, _ = _carry(truth, hole)
    carried = hole & ~remains
    assert carried.sum() > 0.95 * hole.sum()
    detail = [p.astype(float) - cv2.blur(p.astype(float), (5, 5)) for p in images]
    true_detail = [p.astype(float) - cv2.blur(p.astype(float), (5, 5)) for p in truth]
    inner = np.stack([cv2.erode(c.astype(np.uint8), np.ones((9, 9))) > 0 for c in carried])
    got, wanted = np.stack(detail)[inner].ravel(), np.stack(true_detail)[inner].ravel()
    assert np.corrcoef(got, wanted)[0, 1] > 0.7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("value", [True, 1, 255])
@pytest.mark.parametrize("move", [_still, _pan])
def test_odd_sizes_several_holes_and_the_frames_border(
    dtype: type, value: int, move: Callable[[int], NDArray[np.float64]]
) -> None:
    height, width = 203, 517
    truth = _filmed(12, move, height, width).astype(dtype)
    if dtype == np.uint16:
        truth *= 257
    masks = np.zeros(truth.shape[:3], bool if value is True else np.uint8)
    for t in range(12):
        masks[t, :18, 30 + 6 * t : 50 + 6 * t] = value
        masks[t, 180 - 9 * t : 203 - 9 * t, 497:] = value
    plan = make_plan(masks.view(np.uint8), 12)
    assert len(plan.shots[0].regions) == 2
    found = list(Propagator()(zip(truth, masks, strict=True), plan))
    images, remaining = (np.stack([carried[i] for carried in found]) for i in (0, 1))
    assert images.dtype == dtype
    assert remaining.dtype == masks.dtype
    hole, remains = masks != 0, remaining != 0
    assert np.array_equal(images[~hole], truth[~hole])
    assert set(np.unique(remaining)) <= {0, value}
    assert remains.sum() < 0.2 * hole.sum()
    assert _far(images, truth, hole & ~remains) < 3 * np.iinfo(dtype).max / 255


@pytest.mark.parametrize("size", [(1, 2), (8, 8), (8, 64), (11, 40), (64, 9)])
def test_tiny_frames(size: tuple[int, int]) -> None:
    height, width = size
    truth = np.full((4, height, width, 3), 90, np.uint8)
    hole = np.zeros(truth.shape[:3], bool)
    for t in range(4):
        hole[t, t % height, t % width] = True
    images, remains, _ = _carry(truth, hole)
    assert (images[~remains] == 90).all()


def test_large_frames_shorten_the_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, hole = _filmed(30, _still), _standing(30)
    hole[0] = False
    frame = truth[0].nbytes + hole[0].nbytes
    held = propagator.CHUNK_FRAMES + propagator.CONTEXT_PAIRS + 2 * 6
    monkeypatch.setattr(propagator, "BUFFER_BYTES", 2 * held * frame)
    _, remains, _ = _carry(truth, hole)
    assert not remains[1:7].any()
    assert remains[7:].any(axis=(1, 2)).all()
    monkeypatch.setattr(propagator, "BUFFER_BYTES", 1)
    assert _carry(truth, hole)[1][2:].any(axis=(1, 2)).all()


def test_bad_input_is_named() -> None:
    truth, hole = _filmed(6, _pan), _moving(6)
    masks = hole.view(np.uint8)
    with pytest.raises(InputError, match="reach: expected at least 1 frame, got 0"):
        Propagator(reach=0)
    with pytest.raises(InputError, match="clip: expected the plan's 6 frames, got 4"):
        list(Propagator()(zip(truth[:4], masks[:4], strict=True), make_plan(masks, 6)))
    with pytest.raises(
        InputError, match=r"flow: expected the shape \(\d+, \d+, 2\) of its pictures"
    ):
        _carry(truth, hole, flow=lambda a, b: np.moveaxis(dis_flow(a, b), -1, 0))


def test_a_failing_flow_is_told_at_once() -> None:
    truth, hole = _filmed(70, _still), _standing(70)
    calls = []

    def flow(first: Gray, _: Gray) -> Flow:
        calls.append(first.shape)
        time.sleep(0.02)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _carry(truth, hole, flow=flow)
    seen = len(calls)
    time.sleep(0.1)
    assert len(calls) == seen < 140


def test_flow_that_is_no_number_is_completed_like_the_hole() -> None:
    truth, hole = _filmed(12, _still), _moving(12)

    def flow(first: Gray, second: Gray) -> Flow:
        found = dis_flow(first, second)
        found[:6, :6] = np.nan
        return found

    images, remains, _ = _carry(truth, hole, flow=flow)
    assert not remains.any()
    assert _far(images, truth, hole) < 1.5


def test_another_flow_can_be_plugged_in() -> None:
    truth, hole = _filmed(8, _pan), _moving(8)
    calls = []

    def flow(first: Gray, second: Gray) -> Flow:
        assert first.dtype == second.dtype == np.uint8
        assert first.shape == second.shape
        calls.append(first.shape)
        return dis_flow(first, second)

    ours, theirs = _carry(truth, hole), _carry(truth, hole, flow=flow)
    assert len(calls) == 2 * 7
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(one, other)


def test_what_is_in_the_hole_does_not_matter() -> None:
    truth, hole = _filmed(10, _pan), _moving(10)
    masks = hole.view(np.uint8)
    plan = make_plan(masks, 10)

    def carried(value: int) -> list[Carried]:
        frames = truth.copy()
        frames[hole] = value
        return list(Propagator()(zip(frames, masks, strict=True), plan))

    for dark, light in zip(carried(0), carried(255), strict=True):
        assert np.array_equal(dark.mask, light.mask)
        assert np.array_equal(dark.image[dark.mask == 0], light.image[light.mask == 0])
