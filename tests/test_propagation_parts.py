# SPDX-License-Identifier: Apache-2.0
"""The parts that propagation is made of, each on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vinpaint.propagation.blending import (
    AGE_ERROR,
    HALF_TRUST,
    mixing_weights,
    sample,
    seam_correction,
    trusted,
)
from vinpaint.propagation.completion import (
    OFFSETS,
    FlowCompleter,
    FlowCompletionNet,
    known_flow,
    shipped_network,
)
from vinpaint.propagation.exposure import log_gain
from vinpaint.propagation.flow import dis_flow, warp
from vinpaint.propagation.grid import CELL, any_in_cell, fetched, places, reduced
from vinpaint.propagation.motion import fit_motion, motion_flow
from vinpaint.propagation.pointers import Pointers


def _pointers(source: list[int], x: list[float], y: list[float], error: list[float]) -> Pointers:
    planes = (np.array(values, np.float32) for values in (x, y, error))
    return Pointers(np.array(source), *planes)


def test_a_cell_stands_for_its_pixels() -> None:
    picture = np.arange(8 * 12, dtype=np.float32).reshape(8, 12)
    assert reduced(picture).shape == (2, 3)
    assert reduced(picture)[1, 2] == picture[4:8, 8:12].mean()
    mask = np.zeros((8, 12), bool)
    mask[3, 11] = True
    assert any_in_cell(mask).tolist() == [[False, False, True], [False, False, False]]
    x, y = places(2, 3)
    assert x[0, 1] == np.arange(CELL, 2 * CELL).mean()
    assert y[1, 0] == np.arange(CELL, 2 * CELL).mean()
    flow = np.zeros((2, 3, 2), np.float32)
    flow[..., 0] = CELL
    assert fetched(reduced(picture), flow)[0].tolist() == [
        *reduced(picture)[0, 1:],
        reduced(picture)[0, 2],
    ]


def test_dis_finds_a_shift_and_warp_undoes_it() -> None:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (90, 120), np.uint8)
    scene = np.kron(scene[::3, ::3], np.ones((3, 3), np.uint8))
    first, second = scene[4:84, 4:116], scene[2:82, 7:119]  # 3 to the left, 2 down
    flow = dis_flow(first, second)
    assert np.abs(np.median(flow, axis=(0, 1)) - (-3, 2)).max() < 0.1
    undone = warp(second.astype(np.float32), flow)
    assert np.abs(undone - first)[10:-10, 10:-10].mean() < 3


def test_the_cameras_motion_is_found_among_others() -> None:
    turn = np.deg2rad(1.5)
    true = np.array(
        [[np.cos(turn), -np.sin(turn), 3], [np.sin(turn), np.cos(turn), -2], [2e-5, -1e-5, 1]]
    )
    flow = motion_flow(true, 30, 40)
    flow[4:14, 6:20] += 5  # an object of its own
    known = np.ones((30, 40), bool)
    known[15:25, 20:30] = False
    flow[15:25, 20:30] = 99
    found = motion_flow(fit_motion(flow, known), 30, 40)
    assert np.abs(found - motion_flow(true, 30, 40)).max() < 0.05


def test_where_there_is_no_one_motion_the_camera_stands_still() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 30, (30, 40, 2)).astype(np.float32)
    assert np.array_equal(fit_motion(noise, np.ones((30, 40), bool)), np.eye(3))
    assert np.array_equal(fit_motion(noise, np.zeros((30, 40), bool)), np.eye(3))


def test_gain_is_measured_along_the_motion_and_outside_the_hole() -> None:
    rng = np.random.default_rng(0)
    earlier = rng.uniform(40, 120, (20, 30, 3)).astype(np.float32)
    later = np.roll(earlier, 2, axis=1) * np.array([1.2, 1.1, 0.9], np.float32)
    flow = np.zeros((20, 30, 2), np.float32)
    flow[..., 0] = -2 * CELL
    known = np.ones((20, 30), bool)
    later[5:15, 5:15] = 200
    known[5:15, 5:15] = False
    gain = log_gain(later, known, earlier, known, flow)
    assert np.exp(gain) == pytest.approx([1.2, 1.1, 0.9], abs=0.01)
    nothing = np.zeros_like(known)
    assert log_gain(later, nothing, earlier, known, flow).tolist() == [0, 0, 0]
    assert log_gain(later + 250, known, earlier, known, flow).tolist() == [0, 0, 0]


def test_colours_are_fetched_with_the_gain_between_the_frames() -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (30, 40, 3))
    pictures = {4: np.ascontiguousarray(ramp), 9: np.ascontiguousarray(2 * ramp)}
    pointers = _pointers(
        [9, -1, 4, 4], [10.0, 0, 20.5, 7.0], [3.0, 0, 2.25, 29.0], [0, np.inf, 0, 0]
    )
    gains = {4: np.zeros(3), 6: np.log([1.0, 2.0, 1.0]), 9: np.zeros(3)}
    colours = sample(pictures, pointers, gains, 6)
    expected = [[20, 40, 20], [0, 0, 0], [20.5, 41, 20.5], [7, 14, 7]]
    assert np.abs(colours - expected).max() <= 1


def test_many_points_are_fetched() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    rows, columns = np.nonzero(np.ones((200, 300), bool))
    pointers = Pointers(
        np.zeros(len(rows), np.int64),
        columns.astype(np.float32),
        rows.astype(np.float32),
        np.zeros(len(rows), np.float32),
    )
    colours = sample({0: picture}, pointers, {0: np.zeros(3)}, 0)
    assert np.array_equal(colours, picture.reshape(-1, 3))


def test_the_nearer_and_surer_source_counts_more() -> None:
    past = _pointers([4, -1, -1, 4], [0] * 4, [0] * 4, [1, np.inf, np.inf, 3])
    future = _pointers([6, 7, -1, 6], [0] * 4, [0] * 4, [1, 2, np.inf, 1])
    weights, error = mixing_weights(5, [past, future])
    assert weights.sum(axis=0) == pytest.approx([1, 1, 0, 1])
    assert weights[0] == pytest.approx([0.5, 0, 0, (1 + AGE_ERROR) / (4 + 2 * AGE_ERROR)])
    assert error[:2] == pytest.approx([1 + AGE_ERROR, 2 + 2 * AGE_ERROR])
    assert np.isinf(error[2])
    trust = trusted(np.array([0, HALF_TRUST, 1e3, np.inf], np.float32))
    assert trust == pytest.approx([1, 0.5, 0, 0])


def test_a_seam_is_closed_at_the_rim_and_forgotten_inside() -> None:
    picture = np.full((60, 60, 3), 100, np.float32)
    carried = picture - 20
    rim = np.zeros((60, 60), bool)
    rim[10:50, 10:50] = True
    rim[13:47, 13:47] = False
    correction = seam_correction(picture, carried, rim)
    assert correction[rim] == pytest.approx(np.full((rim.sum(), 3), 20), abs=0.1)
    assert 5 < correction[17, 30, 0] < 15
    assert correction[30, 30, 0] < 2
    assert not seam_correction(picture, carried, np.zeros_like(rim)).any()


def test_known_flow_distrusts_what_the_way_back_denies() -> None:
    flow = np.zeros((24, 32, 2), np.float32)
    flow[..., 0] = 6
    back = -flow
    back[8:12, 8:16, 0] = 3
    unknown = np.zeros((24, 32), bool)
    unknown[18:22, 3:9] = True
    gray, hole = np.zeros((24, 32), np.float32), np.zeros((24, 32), bool)
    found = known_flow(flow, back, unknown, gray, hole)
    assert np.abs(found.residual).max() < 0.01  # the camera pans
    denied = found.unknown[0] > 0
    assert denied[18:22, 3:9].all()
    assert denied[9:11, 8:14].all()
    assert denied.sum() < 24 + 60


def test_the_network_goes_on_with_the_motion_around_the_hole() -> None:
    y, x = np.mgrid[:24, :32].astype(np.float32)
    flow = np.stack([2 + 0.05 * y, 0.04 * x - 1], axis=-1)
    unknown = np.zeros((24, 32), bool)
    unknown[8:16, 10:20] = True
    spoilt = np.where(unknown[..., None], 0, flow).astype(np.float32)
    gray, hole = np.full((24, 32), 0.5, np.float32), unknown
    pair = known_flow(spoilt, -spoilt, unknown, gray, hole)
    completed, alone = FlowCompleter()([[pair] * len(OFFSETS), [*[None] * 3, pair, *[None] * 3]])
    for found in (completed, alone):
        assert np.abs(found.flow - flow).max() < 0.3
        assert found.error.shape == (24, 32)
        assert (found.error > 0).all()


def test_an_untrained_network_leaves_the_harmonic_fill() -> None:
    network = FlowCompletionNet()
    x = torch.randn(2, 3 * len(OFFSETS) + 4, 10, 14)
    added, log_error = network(x)
    assert added.shape == (2, 2, 10, 14)
    assert log_error.shape == (2, 1, 10, 14)
    assert not added.any()
    assert sum(p.numel() for p in shipped_network().parameters()) < 1.4e6
