# SPDX-License-Identifier: Apache-2.0
"""Work that waits its turn: first come, first served, can be watched and cancelled."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from vinpaint.errors import InputError

Told = Callable[[str, int, int], None]
"""Called by work with what it does, how much of it is done, and how much there is (0: not known)."""

State = Literal["waiting", "running", "done", "failed", "cancelled"]


CLOSING_SECONDS = 20.0
"""That running work gets to hear that it was cancelled. Its thread is a daemon, and does not keep a process alive."""


class Cancelled(Exception):  # noqa: N818 - nothing went wrong
    """Raised inside work that was cancelled."""


class Job:
    """One piece of work and how far it is.

    Attributes:
        state: where it stands.
        phase: what it does.
        done: how much of that is done.
        total: how much there is; 0: not known.
        result: what the work returned, once it is done.
        error: what it raised, once it has failed.
    """

    def __init__(self, work: Callable[[Told], Any], queue: Jobs) -> None:
        self._queue = queue
        self.state: State = "waiting"
        self.phase, self.done, self.total = "", 0, 0
        self.result: Any = None
        self.error: Exception | None = None
        self._work = work
        self._phase_began = self._last_told = 0.0
        self._cancelled = threading.Event()
        self._ended = threading.Event()

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return not self._ended.is_set()

    def cancel(self) -> None:
        """End it as soon as it tells of its progress, or at once if it waits. Safe at any time, more than once."""
        self._cancelled.set()
        self._queue.forget(self)

    @property
    def ahead(self) -> int:
        """How many jobs will be done before this one, which waits."""
        return self._queue.ahead(self)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; whether it has."""
        return self._ended.wait(seconds)

    def seconds_left(self) -> float | None:
        """Seconds left of the present phase: from its pace up to the last report, less the time since; ``None`` while
        nobody can tell."""
        done, total = self.done, self.total  # the work goes on meanwhile
        passed = self._last_told - self._phase_began
        if self.state != "running" or not total or not done or passed < 1:
            return None
        left = passed * (total - done) / done - (time.monotonic() - self._last_told)
        return left if left > 0 else None

    def told(self, phase: str, done: int, total: int) -> None:
        """What the work calls. Raises Cancelled if it was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled
        self._last_told = time.monotonic()
        if phase != self.phase:
            self._phase_began = self._last_told
        self.phase, self.done, self.total = phase, done, total

    def run(self) -> None:
        """Do the work, in the thread that calls. Never raises."""
        try:
            self.told("", 0, 0)
            self.state = "running"
            self.result = self._work(self.told)
            self.state = "done"
        except Cancelled:
            self.state = "cancelled"
        except Exception as error:  # noqa: BLE001 - shown to whoever watches
            self.error, self.state = error, "failed"
        finally:
            del self._work  # and with it all that it holds
            self._ended.set()


class Jobs:
    """A queue of jobs and the one thread that does them.

    Args:
        limit: jobs that may wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="vinpaint-jobs", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Told], Any]) -> Job:
        """Put work at the end of the queue.

        Raises:
            InputError: too many wait already.
        """
        with self._changed:
            if len(self._waiting) >= self._limit:
                raise InputError(
                    f"The queue is full: {self._limit} are waiting. Try again in some minutes."
                )
            job = Job(work, self)
            self._waiting.append(job)
            self._changed.notify()
        return job

    def ahead(self, job: Job) -> int:
        """How many jobs will be done before this one that waits."""
        with self._changed:
            before = list(self._waiting).index(job) if job in self._waiting else 0
            return before + (self._running not in (None, job))

    def close(self) -> None:
        """Cancel everything and wait for the end of what runs, some seconds at most."""
        with self._changed:
            self._closed = True
            left = [*self._waiting, *filter(None, [self._running])]
            self._changed.notify()
        for job in left:
            job.cancel()
        self._thread.join(CLOSING_SECONDS)

    def forget(self, job: Job) -> None:
        """Take a job that was cancelled out of the queue, if it still waits: it ends now, not when its turn comes."""
        with self._changed:
            waits = job in self._waiting
            if waits:
                self._waiting.remove(job)
        if waits:
            job.run()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._running = job = self._waiting.popleft()
            job.run()
