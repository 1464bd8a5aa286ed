# SPDX-License-Identifier: Apache-2.0
"""How a run ends before its end: by a signal or its time limit, with everything saved."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "time limit": 75}
"""Exit codes of ``vinpaint train`` by what stopped it; after each the same command goes on."""

TIME_LIMIT = "time limit"


class Stopped(Exception):  # noqa: N818
    """The run was stopped and saved; the same call goes on with it.

    Attributes:
        reason: ``"SIGINT"``, ``"SIGTERM"`` or ``"time limit"``.
        step: steps done.
    """

    def __init__(self, reason: str, step: int) -> None:
        super().__init__(f"stopped by {reason} after step {step}; the same command goes on")
        self.reason, self.step = reason, step

    @property
    def exit_code(self) -> int:
        """What the process should return."""
        return EXIT_CODES[self.reason]


class Interruption:
    """While entered, SIGINT and SIGTERM ask the loop to stop instead of killing it; a second one kills."""

    def __init__(self, time_limit: float | None) -> None:
        self._deadline = None if time_limit is None else time.monotonic() + time_limit
        self._reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str | None:
        """Why to stop, ``None`` to go on."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return self._reason or (TIME_LIMIT if late else None)

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._reason = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def ignore_signals(_worker: int) -> None:
    """For processes that make samples: a signal to all of a run's is its loop's to answer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
