# SPDX-License-Identifier: Apache-2.0
"""The mark of tests that need the packages with the feature networks' weights."""

from __future__ import annotations

import os
from importlib import metadata

import pytest

from vinpaint.features.weights import INSTALL, VERSIONS


def _installed():
    try:
        return all(metadata.version(name) == version for name, version in VERSIONS.items())
    except metadata.PackageNotFoundError:
        return False


# Where they are required and missing, the test runs and fails with the same advice.
needs_weights = pytest.mark.skipif(
    not _installed() and os.environ.get("VINPAINT_REQUIRE_WEIGHTS") != "1",
    reason=f"needs the feature networks' weights: {INSTALL}",
)
