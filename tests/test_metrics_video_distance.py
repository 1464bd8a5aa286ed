# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from feature_weights import needs_weights

from vinpaint.errors import InputError
from vinpaint.evaluation.video_distance import VideoFeatures, frechet_distance


def diagonal(deviations, mean):
    """Features whose mean and covariance, diag(deviations²), are exact."""
    size = len(deviations)
    reach = np.sqrt((2 * size - 1) / 2) * np.diag(deviations)
    return np.concatenate([reach, -reach]) + mean


def from_covariances(a, b):
    """The distance by its formula, with symmetric square roots."""

    def root(matrix):
        values, vectors = np.linalg.eigh(matrix)
        return (vectors * np.sqrt(values.clip(0))) @ vectors.T

    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    half = root(cov_a)
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return shift + np.trace(cov_a + cov_b - 2 * root(half @ cov_b @ half))


def test_gaussians_along_the_axes_have_a_known_distance():
    a = diagonal([1.0, 2.0, 3.0], mean=[0, 0, 0])
    b = diagonal([2.0, 2.0, 0.5], mean=[1, -2, 0])
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1 + 0 + 2.5**2)


@pytest.mark.parametrize("sizes", [(40, 50), (40, 5), (5, 4)], ids=str)
def test_any_two_sets_agree_with_the_formula(sizes):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 8)) @ rng.normal(size=(8, 8)) for n in sizes)
    assert frechet_distance(a, b) == pytest.approx(from_covariances(a, b), rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))


def test_equal_sets_are_at_no_distance_and_a_shift_costs_its_square():
    a = np.random.default_rng(0).normal(size=(6, 30))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a[::-1] + 2) == pytest.approx(30 * 4)


@pytest.mark.parametrize("shape", [(1, 8), (5, 7), (8,)])
def test_sets_that_do_not_fit_are_refused(shape):
    with pytest.raises(InputError, match=r"got \(5, 8\) and"):
        frechet_distance(np.zeros((5, 8)), np.zeros(shape))


@needs_weights
def test_a_clip_has_features_of_every_window():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (25, 12, 16, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    features = VideoFeatures()
    got = features(frames)
    assert got.shape == (2, 1024)
    np.testing.assert_allclose(got[1], features(frames[8:24])[0], rtol=1e-4, atol=1e-5)
    for wrong, message in ((frames[:15], "at least 16, got 15"), (frames / 255, "got float64")):
        with pytest.raises(InputError, match=message):
            features(wrong)
