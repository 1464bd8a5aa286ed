# SPDX-License-Identifier: Apache-2.0
"""The compiled half, or a sentence that says why it is not here."""

from __future__ import annotations

try:
    import torch  # noqa: F401 - its libraries have to be loaded first

    from vinpaint import _C as _C
except ImportError as error:
    message = (
        "vinpaint's compiled half cannot be loaded. In the source folder Python finds the sources "
        "instead of the installed package: run from another folder, after `pip install .`"
    )
    raise ImportError(message) from error
