# SPDX-License-Identifier: Apache-2.0
"""Fill masked holes in video with 3DCN and CombCN."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vinpaint.errors import InputError, InputWarning
    from vinpaint.files import Report, inpaint_video
    from vinpaint.inpainting import Inpainter
    from vinpaint.streaming import Streamer

__all__ = [
    "Inpainter",
    "InputError",
    "InputWarning",
    "Report",
    "Streamer",
    "__version__",
    "inpaint_video",
]

_HOMES = {
    "Inpainter": "vinpaint.inpainting",
    "InputError": "vinpaint.errors",
    "InputWarning": "vinpaint.errors",
    "Report": "vinpaint.files",
    "Streamer": "vinpaint.streaming",
    "inpaint_video": "vinpaint.files",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line answers before torch is loaded."""
    if name == "__version__":
        from vinpaint.info import version

        return version()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in ("evaluation", "nn", "ops", "training", "video"):
        return import_module(f"vinpaint.{name}")
    raise AttributeError(f"module 'vinpaint' has no attribute {name!r}")
