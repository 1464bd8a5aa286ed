# SPDX-License-Identifier: Apache-2.0
"""VFID: how far the filled clips of a data set, all together, are from the true ones in the eyes of I3D."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from vinpaint.errors import InputError
from vinpaint.features import I3D, load_i3d
from vinpaint.features.i3d import SIDE

WINDOW, STEP = 16, 8
"""Frames a window has, and frames from the start of one to the start of the next."""

Features = NDArray[np.float64]  # (windows, 1024)


class VideoFeatures:
    """I3D's features of the windows of clips.

    Args:
        device: where to compute.

    Raises:
        InputError: the package with the weights is missing; the message says how to install it.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.net: I3D = load_i3d().to(self.device)

    def __call__(self, frames: NDArray[np.uint8]) -> Features:
        """Features of every window of 16 frames, one every 8 frames; what is left over at the end is not looked at.

        The whole frame is resized to 224 x 224 with the antialiased bilinear filter.

        Args:
            frames: (F, H, W, 3) uint8, at least 16 frames.

        Returns:
            (windows, 1024); collect them over the data set for :func:`frechet_distance`.

        Raises:
            InputError: fewer frames, another type or shape.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise InputError(
                f"frames: expected uint8 (F, H, W, 3), got {frames.dtype} {tuple(frames.shape)}"
            )
        if len(frames) < WINDOW:
            raise InputError(f"frames: expected at least {WINDOW}, got {len(frames)}")
        starts = range(0, len(frames) - WINDOW + 1, STEP)
        return np.concatenate([self._features(frames[start : start + WINDOW]) for start in starts])

    def _features(self, window: NDArray[np.uint8]) -> Features:
        pictures = torch.from_numpy(window).to(self.device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True)
            features = self.net.features(pictures.transpose(0, 1)[None])
        return features.double().cpu().numpy()


def frechet_distance(a: Features, b: Features) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features.

    ``|mean_a - mean_b|² + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))``, with the unbiased covariances. With fewer
    features than dimensions it is biased upwards, so only sets of the same size compare.

    Args:
        a: (n, D), n at least 2.
        b: (m, D), m at least 2.

    Raises:
        InputError: shapes that do not fit, or fewer than two features in a set.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise InputError(
            "features: expected (n, D) and (m, D) with n and m at least 2, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    # cov = rootᵀ root, so the eigenvalues of cov_a cov_b are the squared singular values of root_a root_bᵀ: no
    # square root of a matrix that rounding has made indefinite.
    overlap = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum()
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return max(float(shift + spread - 2 * overlap), 0.0)


def _covariance_root(features: Features) -> Features:
    """A matrix R with at most D rows and ``Rᵀ R`` the covariance of (n, D) features."""
    centered = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    if len(features) <= features.shape[1]:
        return centered
    return np.asarray(np.linalg.qr(centered, mode="r"))
