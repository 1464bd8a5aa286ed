# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from vinpaint.evaluation.flow import TruthFlow, warp_error
from vinpaint.propagation.flow import warp

HEIGHT, WIDTH = 80, 96
SHIFT_X, SHIFT_Y = 3, -2  # what is seen moves this much a frame


def scenery(seed=0, height=2 * HEIGHT, width=2 * WIDTH):
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moving(frames=4):
    picture = scenery()
    corners = [(40 - SHIFT_Y * t, 40 - SHIFT_X * t) for t in range(frames)]
    return np.stack([picture[y : y + HEIGHT, x : x + WIDTH] for y, x in corners])


def box(frames):
    mask = np.zeros((frames, HEIGHT, WIDTH), bool)
    mask[:, 30:50, 40:60] = True
    return mask


@pytest.fixture(scope="module")
def clip():
    return moving()


@pytest.fixture(scope="module")
def flows(clip):
    return TruthFlow(clip)


def test_the_flow_of_a_shift_is_the_shift(flows):
    assert len(flows.flows) == len(flows.valid) == 3
    middle = np.s_[15:-15, 15:-15]
    for flow, valid in zip(flows.flows, flows.valid, strict=True):
        assert np.abs(flow[middle] - (SHIFT_X, SHIFT_Y)).max() < 0.5
        assert valid[middle].mean() > 0.99


def test_what_leaves_the_frame_is_not_valid(flows):
    assert not flows.valid[:, 0].any()
    assert not flows.valid[:, :, -1].any()


def test_unrelated_frames_confirm_little():
    clip = np.stack([scenery(seed, HEIGHT, WIDTH) for seed in (0, 1)])
    assert TruthFlow(clip).valid.mean() < 0.5


def test_warp_fetches_from_where_a_pixel_went():
    picture = np.arange(30, dtype=np.float32).reshape(5, 6)
    flow = np.zeros((5, 6, 2), np.float32)
    flow[..., 0], flow[..., 1] = 1, 2
    np.testing.assert_allclose(warp(picture, flow)[:3, :5], picture[2:, 1:])
    flow[..., 1] = 0.5
    np.testing.assert_allclose(warp(picture, flow)[:4, :5], (picture[:4, 1:] + picture[1:, 1:]) / 2)


def test_the_truth_follows_itself_and_a_frozen_fill_does_not(clip, flows):
    mask = box(4)
    frozen = np.where(mask[..., None], clip[:1], clip)
    assert warp_error(clip, mask, flows) < 0.2
    assert warp_error(frozen, mask, flows) > 2


def test_a_constant_error_costs_no_warp_error(clip, flows):
    mask = np.ones(clip.shape[:3], bool)
    assert warp_error(np.full_like(clip, 90), mask, flows) == 0


def test_a_pulse_on_a_still_truth_has_a_known_warp_error():
    truth = np.stack([scenery(0, HEIGHT, WIDTH)] * 4)
    mask = box(4)
    filled = truth.copy()
    filled[::2][mask[::2]] = 100
    filled[1::2][mask[1::2]] = 151
    flows = TruthFlow(truth)
    assert flows.valid.all()
    assert warp_error(filled, mask, flows) == pytest.approx(1000 * 0.2**2, rel=1e-5)


def test_only_pixels_filled_in_both_frames_count(clip, flows):
    mask = box(4)
    noisy = np.where(mask[..., None], clip, 255 - clip)
    inner = np.zeros_like(mask)
    inner[:, 34:44, 46:54] = True  # what it moves to is in the box as well
    assert warp_error(noisy, inner, flows) == warp_error(clip, inner, flows)
    inner[1::2] = False
    assert math.isnan(warp_error(noisy, inner, flows))


def test_nan_where_nothing_is_valid(clip):
    flows = TruthFlow(clip)
    flows.valid[:] = False
    assert math.isnan(warp_error(clip, box(4), flows))
    assert math.isnan(warp_error(clip[:1], box(1), TruthFlow(clip[:1])))
