# SPDX-License-Identifier: Apache-2.0
"""What an evaluation keeps, so that it can be interrupted: arrays in a file, and a hash of what they rest on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinpaint.video.atomic import AtomicOutput

Arrays = dict[str, NDArray[Any]]


def cached(path: Path, key: str, make: Callable[[], Mapping[str, Any]]) -> Arrays:
    """The arrays in ``path`` if they were kept under this ``key``; else those of ``make``, which are kept."""
    if path.exists():
        with np.load(path) as kept:
            if str(kept["key"]) == key:
                return dict(kept)
    arrays = {name: np.asarray(value) for name, value in make().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with AtomicOutput(path, "file", overwrite=True) as hidden, hidden.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, key=np.asarray(key), **arrays)
    return arrays


def digest(*parts: NDArray[Any] | str) -> str:
    """A hash of arrays, with their shapes and types, and of texts."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(f"{len(part)} {part}".encode())
        else:
            found.update(f"{part.dtype} {part.shape}".encode())
            found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()
