# SPDX-License-Identifier: Apache-2.0
"""The scores of a filled clip: one table of names and definitions, and one function that gives them."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.evaluation.flow import Frames, Mask, TruthFlow, warp_error
from vinpaint.evaluation.perceptual import LPIPS, lpips_hole

PSNR_LIMIT = 100.0
"""dB; what equal frames score, and the most any frame can."""

SSIM_SIZE, SSIM_SIGMA = 11, 1.5
"""SSIM's Gaussian window, in pixels."""

SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


class Metric(NamedTuple):
    """What a score means."""

    unit: str
    better: Literal["lower", "higher"]
    definition: str


METRICS: dict[str, Metric] = {
    "l1": Metric(
        "0..255",
        "lower",
        "Mean absolute difference over the clip's hole pixels and their channels.",
    ),
    "psnr": Metric(
        "dB",
        "higher",
        "PSNR of the whole frame, at most 100 dB, averaged over the frames with a hole.",
    ),
    "psnr_hole": Metric(
        "dB",
        "higher",
        "PSNR over the frame's hole pixels, at most 100 dB, averaged over the frames with a hole.",
    ),
    "ssim": Metric(
        "",
        "higher",
        "SSIM (Gaussian window of 11 px, sigma 1.5, mean of red, green and blue) averaged over the frame, then "
        "over the frames with a hole.",
    ),
    "ssim_hole": Metric(
        "",
        "higher",
        "The same SSIM map averaged over the frame's hole pixels, then over the frames with a hole.",
    ),
    "lpips": Metric(
        "",
        "lower",
        "LPIPS (AlexNet) of the hole's bounding box, enlarged to at least 64 x 64 px, averaged over the frames "
        "with a hole.",
    ),
    "warp_error": Metric(
        "1e-3",
        "lower",
        "Mean squared difference (pixels 0..1) of a frame and the next one warped to it by the truth's optical "
        "flow, over pixels filled in both whose flow passes the forward-backward check. The truth's own is not 0.",
    ),
    "flicker": Metric(
        "0..255",
        "lower",
        "Mean, over pixels and channels in the hole of any of three frames in a row, of how far the second difference "
        "in time |x[t - 1] - 2 x[t] + x[t + 1]| exceeds the truth's (0 where it does not). A fill that stands still "
        "scores 0.",
    ),
    "vfid": Metric(
        "",
        "lower",
        "Fréchet distance of the I3D features of 16-frame windows, every 8 frames, of all filled and all true "
        "clips; of the whole data set, and only comparable on the same one.",
    ),
    "seconds_per_frame": Metric(
        "s",
        "lower",
        "Wall-clock time of filling a clip, divided by its frames; the median over clips. Decoding, loading and a "
        "network's first run are not counted; a program's own start is.",
    ),
    "peak_memory": Metric(
        "MiB",
        "lower",
        "The most host memory resident at once while the clip was filled, the largest over clips: of the process "
        "that runs this method alone, Python and its libraries included, or of the largest process of a program. "
        "What lies on a GPU is not in it.",
    ),
    "gpu_memory": Metric(
        "MiB",
        "lower",
        "The most memory that torch's tensors took on the GPU while the clip was filled, weights included, the "
        "largest over clips. Not measured of a program.",
    ),
}
"""Name, unit, direction and definition of every score of a report. Pixels are red, green, blue in 0..255."""


def measure(
    filled: Frames,
    truth: Frames,
    mask: Mask,
    *,
    perceptual: LPIPS | None,
    flows: TruthFlow | None,
) -> dict[str, float]:
    """Score one filled clip.

    Args:
        filled: (F, H, W, 3) uint8.
        truth: the same clip without a hole, like ``filled``.
        mask: (F, H, W) bool, True in the hole, which some frame must have.
        perceptual: for ``lpips``; left out without it.
        flows: of this ``truth``, for ``warp_error``; left out without it.

    Returns:
        Scores by their names in :data:`METRICS`, which defines them. NaN: ``flicker`` of fewer than three frames in
        or beside a hole, ``warp_error`` where no hole pixel has a valid flow.

    Raises:
        InputError: arrays of the wrong type or shape, or no hole.
    """
    _check(filled, truth, mask, flows)
    holed = [_frame_scores(filled[i], truth[i], mask[i]) for i in range(len(mask)) if mask[i].any()]
    scores = {name: float(np.mean([frame[name] for frame in holed])) for name in holed[0]}
    scores["l1"] = l1_hole(filled, truth, mask)
    scores["flicker"] = flicker(filled, truth, mask)
    if perceptual is not None:
        scores["lpips"] = lpips_hole(perceptual, filled, truth, mask)
    if flows is not None:
        scores["warp_error"] = warp_error(filled, mask, flows)
    return {name: scores[name] for name in METRICS if name in scores}


def l1_hole(filled: Frames, truth: Frames, mask: Mask) -> float:
    """Mean absolute difference over the hole's pixels and channels, 0..255. Shapes as in :func:`measure`."""
    return float(np.abs(_difference(filled[mask], truth[mask])).mean(dtype=np.float64))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 arrays of one shape; at most :data:`PSNR_LIMIT`."""
    error = float(np.square(_difference(a, b)).mean(dtype=np.float64))
    return min(10 * math.log10(255**2 / error), PSNR_LIMIT) if error else PSNR_LIMIT


def ssim_map(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Structural similarity (Wang et al. 2004) around every pixel and channel of two pictures (H, W, 3).

    The pictures are mirrored at their borders, so that every pixel has a value.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _smooth(x), _smooth(y)
    product = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    covariance = _smooth(x * y) - product
    variances = _smooth(x * x + y * y) - squares
    similarity: NDArray[np.float64] = (
        (2 * product + SSIM_C1)
        * (2 * covariance + SSIM_C2)
        / ((squares + SSIM_C1) * (variances + SSIM_C2))
    )
    return similarity


def flicker(filled: Frames, truth: Frames, mask: Mask) -> float:
    """How much more than the truth the hole flickers, 0..255; a fill that stands still scores 0.

    A pixel flickers by ``|x[t - 1] - 2 x[t] + x[t + 1]|``; what that exceeds the truth's by, or 0, is averaged over
    the pixels in the hole of any of the three frames. NaN without such frames. Shapes as in :func:`measure`.
    """
    total, count = 0.0, 0
    for start in range(len(mask) - 2):
        three = slice(start, start + 3)
        hole = mask[three].any(axis=0)
        change, expected = (_second_difference(clip[three, hole]) for clip in (filled, truth))
        total += float(np.maximum(change - expected, 0).sum(dtype=np.int64))
        count += change.size
    return total / count if count else math.nan


def _second_difference(pixels: NDArray[np.uint8]) -> NDArray[np.int16]:
    difference: NDArray[np.int16] = np.abs(np.diff(pixels.astype(np.int16), 2, axis=0))
    return difference


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.subtract(a, b, dtype=np.float32)


def _smooth(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    size = (SSIM_SIZE, SSIM_SIZE)
    return np.asarray(
        cv2.GaussianBlur(picture, size, SSIM_SIGMA, borderType=cv2.BORDER_REFLECT_101), np.float64
    )


def _frame_scores(
    filled: NDArray[np.uint8], truth: NDArray[np.uint8], hole: NDArray[np.bool_]
) -> dict[str, float]:
    similarity = ssim_map(filled, truth).mean(-1)
    return {
        "psnr": psnr(filled, truth),
        "psnr_hole": psnr(filled[hole], truth[hole]),
        "ssim": float(similarity.mean()),
        "ssim_hole": float(similarity[hole].mean()),
    }


def _check(filled: Frames, truth: Frames, mask: Mask, flows: TruthFlow | None) -> None:
    if truth.dtype != np.uint8 or truth.ndim != 4 or truth.shape[-1] != 3:
        raise InputError(
            f"truth: expected uint8 (F, H, W, 3), got {truth.dtype} {tuple(truth.shape)}"
        )
    if filled.dtype != np.uint8 or filled.shape != truth.shape:
        raise InputError(
            f"filled: expected uint8 {tuple(truth.shape)} like the truth, "
            f"got {filled.dtype} {tuple(filled.shape)}"
        )
    if mask.dtype != np.bool_ or mask.shape != truth.shape[:3]:
        raise InputError(
            f"mask: expected bool {tuple(truth.shape[:3])}, got {mask.dtype} {tuple(mask.shape)}"
        )
    if not mask.any():
        raise InputError("mask: expected a hole in some frame, got none")
    if flows is not None and flows.valid.shape != (len(truth) - 1, *truth.shape[1:3]):
        raise InputError(
            f"flows: expected those of the truth {tuple(truth.shape)}, "
            f"got {len(flows.valid)} of frames {flows.valid.shape[1:]}"
        )
