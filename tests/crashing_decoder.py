# SPDX-License-Identifier: Apache-2.0
"""A decoder that brings its process down; in its own module, so that other processes find it."""

from __future__ import annotations

import os
from pathlib import Path

from vinpaint.training import cache
from vinpaint.training.sources import Source

_decode = cache.decode


def decode(folder: Path, source: Source, decoding: cache.Decoding) -> str | None:
    if source.name == "crash":
        os._exit(1)
    return _decode(folder, source, decoding)
