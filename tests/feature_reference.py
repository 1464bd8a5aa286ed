# SPDX-License-Identifier: Apache-2.0
"""The feature networks as published, in NumPy, straight from the raw arrays: channels last, one picture or clip.

Each layer is evaluated where it stands: nothing folded, nothing padded by torch.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def relu(x):
    return np.maximum(x, 0)


def windows(x, size, stride, pads, fill):
    """Every window of ``size``: (*out, C, *size)."""
    x = np.pad(x, [*pads, (0, 0)], constant_values=fill)
    axes = tuple(range(len(size)))
    steps = tuple(slice(None, None, s) for s in stride)
    return sliding_window_view(x, size, axes)[steps]


def convolve(x, kernel, bias, stride, pads):
    size = kernel.shape[:-2]
    w = windows(x, size, stride, pads, 0.0)
    n = len(size)
    out = np.tensordot(w, kernel, axes=([*range(n + 1, 2 * n + 1), n], list(range(n + 1))))
    return out + bias


def max_pool(x, size, stride, pads):
    n = len(size)
    return windows(x, size, stride, pads, -np.inf).max(tuple(range(n + 1, 2 * n + 1)))


def same(shape, size, stride):
    """TensorFlow's SAME: as many outputs as strides begin in the input; the odd pad goes to the end."""
    pads = []
    for n, k, s in zip(shape, size, stride, strict=False):
        outputs = (n + s - 1) // s
        needed = max(k + s * (outputs - 1) - n, 0)
        pads.append((needed // 2, needed - needed // 2))
    return pads


def lpips_input(picture):
    """LPIPS's own scaling, of a picture in [-1, 1]."""
    return (picture - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])


def vgg16(picture, layers):
    """relu1_2 to relu5_3 of an (H, W, 3) picture in [0, 1]."""
    x, outs, index = lpips_input(2 * picture - 1), [], 0
    for depth in (2, 2, 3, 3, 3):
        if outs:
            x = max_pool(x, (2, 2), (2, 2), [(0, 0), (0, 0)])
        for _ in range(depth):
            layer = layers[f"Conv_{index}"]
            x = relu(convolve(x, layer["kernel"], layer["bias"], (1, 1), [(1, 1), (1, 1)]))
            index += 1
        outs.append(x)
    return outs


def alexnet(picture, layers):
    """relu1 to relu5 of an (H, W, 3) picture in [0, 1]."""
    x, outs = lpips_input(2 * picture - 1), []
    for index, (stride, pad, pooled) in enumerate(
        [(4, 2, True), (1, 2, True), (1, 1, False), (1, 1, False), (1, 1, False)]
    ):
        layer = layers[f"Conv_{index}"]
        x = relu(convolve(x, layer["kernel"], layer["bias"], (stride,) * 2, [(pad, pad)] * 2))
        outs.append(x)
        if pooled:
            x = max_pool(x, (3, 3), (2, 2), [(0, 0), (0, 0)])
    return outs


def lpips(outs_a, outs_b, tree):
    """The distance, from two lists of features."""
    distance = 0.0
    for stage, pair in enumerate(zip(outs_a, outs_b, strict=True)):
        a, b = (f / (np.sqrt((f**2).sum(-1, keepdims=True)) + 1e-10) for f in pair)
        weight = tree[f"NetLinLayer_{stage}"]["Conv_0"]["kernel"][0, 0, :, 0]
        distance += (((a - b) ** 2) @ weight).mean()
    return distance


def i3d_body(clip, tree):
    """Mixed_5c of an (F, H, W, 3) clip in [-1, 1]."""

    def unit(x, *path, stride=1):
        weights, statistics = tree["params"], tree["batch_stats"]
        for name in path:
            weights, statistics = weights[name], statistics[name]
        kernel = weights["Conv_0"]["kernel"]
        strides = (stride,) * 3
        x = convolve(x, kernel, 0.0, strides, same(x.shape, kernel.shape[:3], strides))
        moments = statistics["BatchNorm_0"]
        x = (x - moments["mean"].ravel()) / np.sqrt(moments["var"].ravel() + 1e-3)
        return relu(x + weights["BatchNorm_0"]["bias"])

    def pool(x, size, stride):
        return max_pool(x, size, stride, same(x.shape, size, stride))

    def mixed(x, name):
        return np.concatenate(
            [
                unit(x, name, "Branch_0/Conv3d_0a_1x1"),
                unit(
                    unit(x, name, "Branch_1/Conv3d_0a_1x1"),
                    name,
                    "Branch_1/Conv3d_0b_3x3",
                ),
                unit(
                    unit(x, name, "Branch_2/Conv3d_0a_1x1"),
                    name,
                    "Branch_2/Conv3d_0b_3x3",
                ),
                unit(pool(x, (3, 3, 3), (1, 1, 1)), name, "Branch_3/Conv3d_0b_1x1"),
            ],
            axis=-1,
        )

    x = unit(clip, "Conv3d_1a_7x7", stride=2)
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3")
    x = pool(x, (1, 3, 3), (1, 2, 2))
    x = mixed(mixed(x, "Mixed_3b"), "Mixed_3c")
    x = pool(x, (3, 3, 3), (2, 2, 2))
    for name in ("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"):
        x = mixed(x, name)
    x = pool(x, (2, 2, 2), (2, 2, 2))
    return mixed(mixed(x, "Mixed_5b"), "Mixed_5c")
