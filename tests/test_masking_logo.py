# SPDX-License-Identifier: Apache-2.0
"""A logo is found by itself: on a texture that moves, and not where there is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vinpaint.masking.logo import find_logo

HEIGHT, WIDTH, FRAMES = 180, 240, 32


def moving_clip(seed: int = 0) -> list[np.ndarray]:
    """A coloured texture under a camera that pans: FRAMES of (HEIGHT, WIDTH, 3) uint8."""
    rng = np.random.default_rng(seed)
    scene = np.zeros((2 * HEIGHT, 2 * WIDTH, 3), np.float32)
    for blur, strength in ((2, 60), (7, 260), (25, 900)):
        noise = rng.standard_normal(scene.shape, np.float32)
        scene += strength * cv2.GaussianBlur(noise, (0, 0), blur)
    scene = np.clip(110 + scene, 0, 255).astype(np.uint8)
    frames = []
    for number in range(FRAMES):
        x, y = 7 * number, 5 * number % HEIGHT
        frames.append(scene[y : y + HEIGHT, x : x + WIDTH].copy())
    return frames


def text_layer(words: str = "LOGO", at: tuple[int, int] = (150, 40)) -> np.ndarray:
    """Opacity 0 to 1 of white text."""
    layer = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.putText(layer, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2, cv2.LINE_AA)
    return layer.astype(np.float32) / 255


def badge_layer() -> np.ndarray:
    layer = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.circle(layer, (45, 135), 20, 1, -1)
    return layer


def with_layer(frames, layer, color=(250, 250, 250)):
    alpha = layer[..., None]
    return [
        np.rint((1 - alpha) * frame + alpha * np.float32(color)).astype(np.uint8)
        for frame in frames
    ]


def iou(mask, truth):
    found = mask > 0
    return np.count_nonzero(found & truth) / np.count_nonzero(found | truth)


@pytest.mark.parametrize("opacity", [1.0, 0.4])
def test_text(opacity):
    layer = text_layer()
    mask = find_logo(with_layer(moving_clip(), opacity * layer))
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert iou(mask, layer > 0) >= 0.7


@pytest.mark.parametrize("opacity", [1.0, 0.5])
def test_a_filled_badge_is_covered_inside_too(opacity):
    layer = badge_layer()
    mask = find_logo(with_layer(moving_clip(), opacity * layer, (200, 20, 40)))
    assert iou(mask, layer > 0) >= 0.8
    assert mask[135, 45] == 255


def test_a_colour_as_bright_as_the_scene():
    gray = [np.repeat(frame[..., 1:2], 3, axis=2) for frame in moving_clip()]
    layer = badge_layer()
    mask = find_logo(with_layer(gray, layer, (255, 40, 90)))
    assert iou(mask, layer > 0) >= 0.8


def test_two_logos():
    text, badge = text_layer(), badge_layer()
    mask = find_logo(with_layer(with_layer(moving_clip(), text), badge, (20, 40, 200)))
    assert iou(mask, (text > 0) | (badge > 0)) >= 0.7


def test_a_time_stamp_wherever_it_had_a_digit():
    frames, ever = [], np.zeros((HEIGHT, WIDTH), bool)
    for number, frame in enumerate(moving_clip()):
        layer = text_layer(f"10:42:{30 + number // 4}", (60, 165))
        ever |= layer > 0
        frames += with_layer([frame], layer)
    mask = find_logo(frames)
    assert iou(mask, ever) >= 0.6
    last_digit = ever.copy()
    last_digit[:, : np.flatnonzero(ever.any(0))[-1] - 14] = False
    assert np.count_nonzero((mask > 0) & last_digit) >= 0.7 * np.count_nonzero(last_digit)


def test_over_the_half_that_moves():
    still = moving_clip(5)[0]
    frames = moving_clip()
    for frame in frames:
        frame[:, : WIDTH // 2] = still[:, : WIDTH // 2]
    assert not find_logo(frames).any()
    layer = text_layer()
    assert iou(find_logo(with_layer(frames, layer)), layer > 0) >= 0.7


def test_gray_content():
    gray = [np.repeat(frame[..., 1:2], 3, axis=2) for frame in moving_clip(3)]
    assert not find_logo(gray).any()
    layer = text_layer()
    assert iou(find_logo(with_layer(gray, layer)), layer > 0) >= 0.7


@pytest.mark.parametrize("seed", range(4))
def test_nothing_in_a_clip_without_a_logo(seed):
    assert not find_logo(moving_clip(seed)).any()


def test_nothing_where_all_stands_still():
    still = moving_clip()[0]
    noise = np.random.default_rng(1).normal(0, 2, (FRAMES, *still.shape))
    frames = [np.clip(still + grain, 0, 255).astype(np.uint8) for grain in noise]
    assert not find_logo(frames).any()


def test_background_that_someone_walks_past_is_no_logo():
    still, walker = moving_clip()[0], moving_clip(9)[0]
    frames = []
    for number in range(FRAMES):
        frame = still.copy()
        left = 6 * number
        frame[60:170, left : left + 50] = walker[60:170, :50]
        frames.append(frame)
    assert not find_logo(frames).any()


def test_a_poster_that_someone_walks_past_is_no_logo():
    wall = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    still = with_layer([wall], text_layer())[0]
    walker = moving_clip(9)[0]
    frames = []
    for number in range(FRAMES):
        frame = still.copy()
        frame[70:, 6 * number : 6 * number + 50] = walker[70:, :50]
        frames.append(frame)
    assert not find_logo(frames).any()


def test_lines_along_a_pan_are_no_logo():
    frames = moving_clip()
    for number, frame in enumerate(frames):
        # Boards beside a pitch: the camera pans along them.
        start = max(8, 120 - 9 * number) if number < 4 else 8
        frame[90:93, start : WIDTH - 8] = (240, 240, 240)
    assert not find_logo(frames).any()


def test_a_bonnet_at_the_border_is_no_logo():
    frames = moving_clip()
    for frame in frames:
        cv2.ellipse(frame, (120, HEIGHT), (60, 22), 0, 180, 360, (30, 30, 35), -1)
    assert not find_logo(frames).any()


def barred(frames):
    for frame in frames:
        frame[:22] = frame[-22:] = 0
        frame[:, :12] = 16
    return frames


def test_bars_are_no_logo():
    assert not find_logo(barred(moving_clip())).any()


def test_a_logo_beside_bars():
    layer = text_layer(at=(150, 52))
    mask = find_logo(barred(with_layer(moving_clip(), layer)))
    assert iou(mask, layer > 0) >= 0.7


def test_a_frame_around_the_picture_is_no_logo():
    frames = moving_clip()
    for frame in frames:
        cv2.rectangle(frame, (0, 0), (WIDTH - 1, HEIGHT - 1), (255, 255, 255), 3)
    assert not find_logo(frames).any()


def test_an_overlay_over_much_of_the_frame_is_not_taken():
    layer = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.rectangle(layer, (30, 30), (210, 150), 1, -1)
    assert not find_logo(with_layer(moving_clip(), layer)).any()


def test_one_colour():
    frames = [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * FRAMES
    assert not find_logo(frames).any()


@pytest.mark.parametrize("count", [1, 2, 15])
def test_too_few_frames(count):
    frames = with_layer(moving_clip()[:count], text_layer())
    assert not find_logo(frames).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (40, 300)])
def test_tiny_frames(size):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (*size, 3), np.uint8) for _ in range(20)]
    mask = find_logo(frames)
    assert mask.shape == size
    assert not mask.any()


def test_more_frames_than_are_kept():
    layer = text_layer()
    frames = with_layer(moving_clip(), layer) * 7
    mask = find_logo(iter(frames))
    assert iou(mask, layer > 0) >= 0.7


def test_a_large_frame_is_found_at_its_own_size():
    layer = cv2.resize(text_layer(), (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    layer = np.clip(layer, 0, 1)
    large = [cv2.resize(frame, (4 * WIDTH, 4 * HEIGHT)) for frame in moving_clip()]
    mask = find_logo(with_layer(large, layer))
    assert mask.shape == (4 * HEIGHT, 4 * WIDTH)
    assert iou(mask, layer > 0.02) >= 0.7


def test_no_frames():
    with pytest.raises(ValueError, match="at least one frame"):
        find_logo([])


def test_frames_that_differ_in_size():
    frames = [np.zeros((90, 90, 3), np.uint8), np.zeros((90, 91, 3), np.uint8)]
    with pytest.raises(ValueError, match="one size"):
        find_logo(frames)
