# SPDX-License-Identifier: Apache-2.0
"""Evaluation: how well holes are filled, in figures."""
