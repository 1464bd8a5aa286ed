# SPDX-License-Identifier: Apache-2.0
"""Entry points of ``torch.hub``: ``torch.hub.load(FOLDER, "inpainter", source="local")``.

The compiled half is not built here: install the package first (``pip install FOLDER``). As the folder's sources would
shadow the installed package, they are taken off the search path while it is imported.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vinpaint.inpainting import Inpainter
    from vinpaint.nn import VideoInpainter

dependencies = ["torch", "numpy", "av", "cv2", "safetensors"]


def inpainter(weights: str | None = None, **options: Any) -> Inpainter:
    """Fills holes in clips; see ``vinpaint.Inpainter.from_pretrained``, which takes the same options.

    weights: a folder, or ``"combcn"`` (the default) or ``"combcn-s"``.
    """
    with _installed():
        from vinpaint.inpainting import Inpainter
    return Inpainter.from_pretrained(weights, **options)


def video_inpainter(weights: str | None = None) -> VideoInpainter:
    """The networks as a module in evaluation mode, float32; see ``vinpaint.nn.VideoInpainter``."""
    with _installed():
        from vinpaint.pretrained import load_pretrained
    return load_pretrained(weights)


@contextmanager
def _installed() -> Iterator[None]:
    """While it lasts ``import vinpaint`` finds the installed package."""
    here = Path(__file__).resolve().parent
    path = sys.path[:]
    sys.path[:] = [entry for entry in path if Path(entry or ".").resolve() != here]
    loaded = sys.modules.get("vinpaint")
    if loaded is not None and here in Path(str(loaded.__file__)).resolve().parents:
        for name in [name for name in sys.modules if name.partition(".")[0] == "vinpaint"]:
            del sys.modules[name]
    try:
        yield
    finally:
        sys.path[:] = path
