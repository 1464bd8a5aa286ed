# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the benchmarks."""

from harness import versus

__all__ = ["versus"]
