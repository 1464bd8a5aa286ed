# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from vinpaint.errors import InputError
from vinpaint.evaluation.flow import TruthFlow
from vinpaint.evaluation.metrics import METRICS, flicker, l1_hole, measure, psnr, ssim_map

FRAMES, HEIGHT, WIDTH = 4, 24, 32
HOLE = np.s_[:, 6:14, 10:22]


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    return rng.integers(60, 180, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def mask():
    mask = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    mask[HOLE] = True
    return mask


def scores(filled, truth, mask):
    return measure(filled, truth, mask, perceptual=None, flows=None)


def test_an_equal_clip_has_the_best_scores(truth, mask):
    got = scores(truth, truth, mask)
    assert got == {
        "l1": 0,
        "psnr": 100,
        "psnr_hole": 100,
        "ssim": pytest.approx(1),
        "ssim_hole": pytest.approx(1),
        "flicker": 0,
    }


def test_a_constant_difference_has_known_scores(truth, mask):
    filled = truth.copy()
    filled[HOLE] += 10
    got = scores(filled, truth, mask)
    assert got["l1"] == pytest.approx(10)
    assert got["psnr_hole"] == pytest.approx(20 * math.log10(25.5))
    share = mask.mean()
    assert got["psnr"] == pytest.approx(20 * math.log10(25.5) - 10 * math.log10(share))
    assert got["flicker"] == 0
    assert got["ssim_hole"] < got["ssim"] < 1


def test_psnr_is_averaged_over_frames_not_over_errors(truth, mask):
    filled = truth.copy()
    filled[0][HOLE[1:]] += 1
    filled[1:][HOLE] += 50
    expected = 20 * np.log10(255 / np.array([1, 50, 50, 50])).mean()
    assert scores(filled, truth, mask)["psnr_hole"] == pytest.approx(expected)


def test_frames_without_a_hole_do_not_count(truth, mask):
    filled = truth.copy()
    filled[0][HOLE[1:]] += 10
    mask[1:] = False
    got = scores(filled, truth, mask)
    alone = scores(filled[:1], truth[:1], mask[:1])
    for name in ("l1", "psnr", "psnr_hole", "ssim", "ssim_hole"):
        assert got[name] == pytest.approx(alone[name])


def test_the_hole_scores_look_at_the_hole_alone(truth, mask):
    filled = np.where(mask[..., None], truth, 255 - truth)
    assert l1_hole(filled, truth, mask) == 0
    assert psnr(filled[mask], truth[mask]) == 100
    assert scores(filled, truth, mask)["psnr"] < 20


def test_one_grey_level_in_one_pixel_is_below_the_limit(truth):
    filled = truth.copy()
    filled[0, 0, 0, 0] += 1
    assert psnr(filled[0], truth[0]) == pytest.approx(10 * math.log10(255**2 * HEIGHT * WIDTH * 3))


def test_ssim_equals_two_loops():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 256, (14, 12, 3), dtype=np.uint8)
    b = np.clip(a + rng.normal(0, 25, a.shape), 0, 255).astype(np.uint8)
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    pad = [(5, 5), (5, 5)]
    expected = np.empty(a.shape)
    for channel in range(3):
        x, y = (np.pad(p[..., channel].astype(float), pad, mode="reflect") for p in (a, b))
        for row in range(14):
            for column in range(12):
                u, v = (p[row : row + 11, column : column + 11] for p in (x, y))
                mean_u, mean_v = (weights * u).sum(), (weights * v).sum()
                var_u = (weights * (u - mean_u) ** 2).sum()
                var_v = (weights * (v - mean_v) ** 2).sum()
                both = (weights * (u - mean_u) * (v - mean_v)).sum()
                expected[row, column, channel] = (
                    (2 * mean_u * mean_v + 2.55**2) * (2 * both + 7.65**2)
                ) / ((mean_u**2 + mean_v**2 + 2.55**2) * (var_u + var_v + 7.65**2))
    np.testing.assert_allclose(ssim_map(a, b), expected, rtol=1e-9, atol=1e-9)


def test_ssim_hole_is_the_map_in_the_hole(truth, mask):
    rng = np.random.default_rng(2)
    filled = np.where(mask[..., None], rng.integers(0, 256, truth.shape, dtype=np.uint8), truth)
    maps = [ssim_map(a, b).mean(-1) for a, b in zip(filled, truth, strict=True)]
    got = scores(filled, truth, mask)
    assert got["ssim"] == pytest.approx(np.mean(maps))
    assert got["ssim_hole"] == pytest.approx(np.mean([m[HOLE[1:]] for m in maps]))


def test_flicker_of_a_pulse_on_a_still_picture(mask):
    truth = np.full((FRAMES, HEIGHT, WIDTH, 3), 100, np.uint8)
    filled = truth.copy()
    filled[::2][HOLE] = 103
    filled[1::2][HOLE] = 97
    assert flicker(filled, truth, mask) == pytest.approx(4 * 3)


def test_steady_change_is_no_flicker(mask):
    truth = np.full((FRAMES, HEIGHT, WIDTH, 3), 100, np.uint8)
    filled = truth + np.arange(FRAMES, dtype=np.uint8)[:, None, None, None] * 5
    assert flicker(filled, truth, mask) == 0


def test_a_still_fill_of_a_moving_truth_does_not_flicker(truth, mask):
    filled = np.where(mask[..., None], np.uint8(128), truth)
    assert flicker(filled, truth, mask) == 0


def test_flicker_counts_what_appears_where_the_hole_begins():
    truth = np.full((3, HEIGHT, WIDTH, 3), 100, np.uint8)
    mask = np.zeros((3, HEIGHT, WIDTH), bool)
    mask[1, :4] = True
    filled = truth.copy()
    filled[1, :4] = 110
    assert flicker(filled, truth, mask) == pytest.approx(2 * 10)


def test_two_frames_have_no_flicker_score(truth, mask):
    assert math.isnan(flicker(truth[:2], truth[:2], mask[:2]))


def test_every_score_is_defined(truth, mask):
    got = measure(truth, truth, mask, perceptual=None, flows=TruthFlow(truth))
    assert list(got) == [name for name in METRICS if name in got]
    assert set(METRICS) - set(got) == {
        "lpips",
        "vfid",
        "seconds_per_frame",
        "peak_memory",
        "gpu_memory",
    }
    for metric in METRICS.values():
        assert metric.better in ("lower", "higher")
        assert metric.definition.endswith(".")


def test_wrong_arrays_are_named(truth, mask):
    with pytest.raises(InputError, match=r"^truth: expected uint8 .* got float64"):
        scores(truth, truth / 255, mask)
    with pytest.raises(InputError, match=r"^filled: .*\(4, 24, 32, 3\) .* got uint8 \(3, 24"):
        scores(truth[1:], truth, mask)
    with pytest.raises(InputError, match=r"^mask: expected bool \(4, 24, 32\), got uint8"):
        scores(truth, truth, mask.astype(np.uint8))
    with pytest.raises(InputError, match=r"^mask: expected a hole"):
        scores(truth, truth, np.zeros_like(mask))
    with pytest.raises(InputError, match=r"^flows: "):
        measure(truth, truth, mask, perceptual=None, flows=TruthFlow(truth[1:]))
