# SPDX-License-Identifier: Apache-2.0
"""What the page says of jobs and of what goes wrong."""

from __future__ import annotations

import errno
import logging
import re
from typing import Literal

from vinpaint.errors import InputError
from vinpaint.web.jobs import Job
from vinpaint.web.project import Filled, Part, Project, Tried
from vinpaint.web.worker import FILLING

Mood = Literal["", "good", "bad"]

WELCOME = "Drop a video to begin."
BEGINNING = "Beginning …"

logger = logging.getLogger(__name__)


def beginning(project: Project) -> str:
    """Of a page that was opened, or opened again."""
    if project.clip is None:
        return WELCOME
    return "Your video is here as you left it."


def waiting(ahead: int) -> str:
    """Of a job that so many are done before."""
    return f"Waiting: {ahead} before you" if ahead else BEGINNING


def running(job: Job) -> str:
    """Of a job that runs."""
    if not job.phase:
        return BEGINNING
    if job.phase == FILLING and not job.done:
        return "Looking for cuts, then filling the first frames …"
    counted = (
        f" {job.done:,} of {job.total:,}" if job.total else f" {job.done:,}" if job.done else ""
    )
    left = job.seconds_left()
    return f"{job.phase}{counted}" + ("" if left is None else f", about {duration(left)} left")


def ended(job: Job, project: Project) -> tuple[str, Mood]:
    """Of a job that has ended."""
    if job.state == "cancelled":
        return "Cancelled; nothing half-written was left.", ""
    if job.error is not None:
        said = explain(job.error)
        job.error.__traceback__ = None  # it would hold the frames that the work had at hand
        return said, "bad"
    if isinstance(job.result, Filled):
        report = job.result.report
        rate = report.frames / report.seconds
        took = f"{report.frames:,} frames in {duration(report.seconds)} ({rate:.1f} frames/s)"
        notes = "".join(f" Note: {_without_folders(warning)}." for warning in job.result.warnings)
        return f"Done: {took}.{notes} The result is below.", "good"
    if isinstance(job.result, Tried):
        return (
            "A first look is below: frames around the one shown above. If it is good, fill the video.",
            "good",
        )
    if isinstance(job.result, Part):
        return f"Added to the hole: {job.result.label}.", "good"
    if project.chosen:
        return "The hole is marked in the picture. Try some frames, or fill the video.", "good"
    return "Now paint over what should go. The slider under the picture shows other frames.", "good"


def explain(error: Exception) -> str:
    """A sentence that says what to do; what is nobody's input goes to the server's log too."""
    if isinstance(error, InputError):
        return _without_folders(str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The server's disk is full, so nothing was written. Try a shorter video, or tell whoever runs this server."
    logger.error("on the page", exc_info=error)
    reason = _without_folders(str(error)) or type(error).__name__
    return f"That failed: {reason}. Reload the page and try again."


def _without_folders(text: str) -> str:
    """Files by their names alone: where they lie is secret."""
    return re.sub(r"/[^\s:'\"]*/vinpaint-web-[^/\s]+/(?:[^/\s:'\"]+/)*", "", text)


def duration(seconds: float) -> str:
    """Such as 34 s or 2 min 10 s."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"
