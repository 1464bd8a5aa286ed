# SPDX-License-Identifier: Apache-2.0
"""How a run ends before its end: by a signal or its time limit, with everything saved."""

from __future__ import annotations

import re
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from vinpaint.errors import InputError

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "time limit": 75}
"""Exit codes of ``vinpaint train`` by what stopped it; after each the same command (without --fresh) goes on."""

TIME_LIMIT = "time limit"


def seconds(duration: str) -> float:
    """``"90s"``, ``"8m"``, ``"1h30m"`` or plain seconds in seconds.

    Raises:
        InputError: none of these, or no time at all.
    """
    number = r"(?:(\d+(?:\.\d+)?){})?"
    units = re.fullmatch(
        "".join(number.format(unit) for unit in ("h", "m", "s?")), duration.strip()
    )
    total = 0.0
    if units is not None:
        hours, minutes, rest = (float(value or 0) for value in units.groups())
        total = 3600 * hours + 60 * minutes + rest
    if not total > 0:
        raise InputError(f"time_limit: expected a time such as 90s, 8m or 1h30m, got {duration!r}")
    return total


class Stopped(Exception):  # noqa: N818
    """The run was stopped and saved; the same call goes on with it, unless it begins anew each time.

    Attributes:
        reason: ``"SIGINT"``, ``"SIGTERM"`` or ``"time limit"``.
        step: steps done.
    """

    def __init__(self, reason: str, step: int, *, fresh: bool = False) -> None:
        command = "the same command without --fresh" if fresh else "the same command"
        super().__init__(f"stopped by {reason} after step {step}; {command} goes on")
        self.reason, self.step = reason, step

    @property
    def exit_code(self) -> int:
        """What the process should return."""
        return EXIT_CODES[self.reason]


class Interruption:
    """While entered, SIGINT and SIGTERM ask the loop to stop instead of killing it; a second one kills."""

    def __init__(self, time_limit: str | None) -> None:
        self._deadline = None
        if time_limit is not None:
            self._deadline = time.monotonic() + seconds(time_limit)
        self._reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> str | None:
        """Why to stop, ``None`` to go on."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return self._reason or (TIME_LIMIT if late else None)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)

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
