# SPDX-License-Identifier: Apache-2.0
"""Who is on the page: a project and a job for each, found again by a secret token, deleted after a while."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vinpaint.errors import InputError
from vinpaint.web.jobs import Job, Jobs, Told
from vinpaint.web.project import Limits, Project

GONE_SECONDS = 180.0
"""Without a sign of life from the page, until it counts as closed. Browsers let a page in the background speak once a
minute only."""

CLOSED_SECONDS = 10.0
"""The same after the page said that it is closed: a reload says so too."""

RESERVED_BYTES = 64 << 20
"""Room on the disk without which no work begins: what visitors paint needs some to arrive at all."""


class Workspace:
    """What one open page has.

    Attributes:
        token: the secret by which the page finds it again after a reload.
        project: its clip and all that belongs to it; in a folder with a secret name of its own.
        job: what it does, or did last.
        told: the job whose end the page has shown.
        frame: the frame that the page shows.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.token = secrets.token_urlsafe(24)
        self.project = Project(folder, limits)
        self.job: Job | None = None
        self.told: Job | None = None
        self.frame = 0
        self.acted = self.seen = time.monotonic()
        self.closed = False
        self._lock = threading.Lock()

    def see(self) -> None:
        """Note a sign of life."""
        self.seen, self.closed = time.monotonic(), False

    def act(self) -> None:
        """Note that the visitor did something."""
        self.acted = time.monotonic()

    def check_ready(self) -> None:
        """Raise what :meth:`start` would, but for a full queue."""
        self.project.check_room()
        if shutil.disk_usage(self.project.folder).free < RESERVED_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.job is not None and self.job.active:
            raise InputError("Something is running for you already: wait for it, or press Cancel.")

    def start(self, jobs: Jobs, work: Callable[[Told], Any]) -> Job:
        """Queue a job.

        Raises:
            InputError: another one has not ended, the queue is full, or the files here are too large.
            OSError: the disk is nearly full.
        """
        with self._lock:
            self.check_ready()
            self.act()
            self.job = jobs.submit(work)
            return self.job

    def cancel(self) -> None:
        """End the job, if one waits or runs."""
        self.act()
        if self.job is not None:
            self.job.cancel()

    def expired(self, keep: float) -> bool:
        """Whether the page was closed, or nobody did anything for ``keep`` seconds."""
        now = time.monotonic()
        patience = CLOSED_SECONDS if self.closed else GONE_SECONDS
        idle = now - self.acted > keep and (self.job is None or not self.job.active)
        return now - self.seen > patience or idle


class Workspaces:
    """All of them.

    Args:
        root: an empty folder for everybody's files.
        limits: of a clip.
        keep: seconds without any action until the files of an open page are deleted.
        count: pages that may be open at once.
    """

    def __init__(self, root: Path, limits: Limits, *, keep: float, count: int) -> None:
        self.root = root
        self._limits, self._keep, self._count = limits, keep, count
        self._all: dict[str, Workspace] = {}
        self._ending: list[Workspace] = []
        self._lock = threading.Lock()

    def open(self, token: str | None = None) -> Workspace:
        """The workspace of a token, or a new one if it has none (any more).

        Raises:
            InputError: too many are open.
        """
        with self._lock:
            found = self._all.get(token or "")
            if found is None:
                if len(self._all) >= self._count:
                    raise InputError(
                        f"The server is full: {self._count} visitors are here. Try again later."
                    )
                found = Workspace(self.root / secrets.token_hex(16), self._limits)
                self._all[found.token] = found
            found.see()
            return found

    def get(self, token: str) -> Workspace:
        """The workspace of a token.

        Raises:
            InputError: it is gone.
        """
        with self._lock:
            found = self._all.get(token)
        if found is None:
            minutes = round(self._keep / 60)
            raise InputError(
                f"Your files were deleted: nothing was done for {minutes} minutes, or the server was started anew. "
                "Reload the page and drop the video again."
            )
        found.see()
        return found

    def close_page(self, token: str) -> None:
        """Note that its page was closed; it may come back within seconds."""
        with self._lock:
            found = self._all.get(token)
        if found is not None:
            found.see()
            found.closed = True

    def folders(self) -> set[Path]:
        """The folders that are still needed."""
        with self._lock:
            return {w.project.folder for w in (*self._all.values(), *self._ending)}

    def sweep(self) -> None:
        """Delete what has expired; a job is cancelled first, and its files go when it has ended."""
        with self._lock:
            expired = [w for w in self._all.values() if w.expired(self._keep)]
            for workspace in expired:
                del self._all[workspace.token]
            self._ending += expired
            ending = list(self._ending)
        # Without the lock, for which the page would wait.
        for workspace in ending:
            workspace.cancel()
            if workspace.job is None or not workspace.job.active:
                shutil.rmtree(workspace.project.folder, ignore_errors=True)
                with self._lock:
                    self._ending.remove(workspace)
