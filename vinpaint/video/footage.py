# SPDX-License-Identifier: Apache-2.0
"""What counts as a video where footage is looked for in folders."""

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm"}
)
"""Suffixes in lower case, of what is trained on and of what is evaluated."""
