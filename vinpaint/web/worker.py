# SPDX-License-Identifier: Apache-2.0
"""Who fills for the page: networks that stay loaded, in a process of their own."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError, InputWarning
from vinpaint.files import Report, inpaint_video
from vinpaint.inpainting import Inpainter
from vinpaint.web.jobs import Cancelled, Told

MakeInpainter = Callable[..., Inpainter]
"""Called with ``weights``, ``precision`` and ``propagate``."""

Networks = Mapping[str, Any]
"""What that is called with."""

KEPT_INPAINTERS = 3
"""Networks held in memory, of different options."""

logger = logging.getLogger(__name__)

HEARING_SECONDS = 0.2
"""After which work that tells nothing is asked again whether it was cancelled."""

ENDING_SECONDS = 15.0
"""That cancelled work has to end by itself, before its process is ended."""


class Filler:
    """Fills in the process that calls.

    Args:
        make_inpainter: gives the networks.
    """

    def __init__(self, make_inpainter: MakeInpainter) -> None:
        self._make_inpainter = make_inpainter
        self._inpainters: dict[tuple[Any, ...], Inpainter] = {}

    def load(self, told: Told, networks: Networks) -> None:
        """Have networks at hand. Raises what ``make_inpainter`` raises."""
        self._inpainter(told, networks)

    def pictures(
        self, told: Told, networks: Networks, frames: NDArray[np.uint8], mask: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """What :class:`vinpaint.Inpainter` makes of some frames in memory."""
        inpainter = self._inpainter(told, networks)
        told("Filling some frames", 0, 0)
        return inpainter(frames, mask)

    def video(
        self, told: Told, networks: Networks, options: Mapping[str, Any]
    ) -> tuple[Report, list[str]]:
        """What :func:`vinpaint.inpaint_video` does with options, and what it warns of."""

        def progress(done: int, total: int) -> None:
            told("Filling" if done else "Looking for cuts", done, total)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputWarning)
            report = inpaint_video(
                **options, inpainter=lambda: self._inpainter(told, networks), progress=progress
            )
        said = [str(warning.message) for warning in caught if warning.category is InputWarning]
        return report, list(dict.fromkeys(said))

    def _inpainter(self, told: Told, networks: Networks) -> Inpainter:
        key = tuple(networks.values())
        found = self._inpainters.pop(key, None)
        if found is None:
            told("Loading the networks", 0, 0)
            found = self._make_inpainter(**networks)
        self._inpainters[key] = found  # the last used last
        for oldest in list(self._inpainters)[:-KEPT_INPAINTERS]:
            del self._inpainters[oldest]
        return found


class Worker(Filler):
    """A filler in a process of its own: threads of this one do not slow it, and its end is not the end of this one.

    Its methods are called by one thread at a time. What the caller's ``told`` raises ends the work, and then the call.

    Args:
        make_inpainter: gives the networks, there; can be pickled.
    """

    def __init__(self, make_inpainter: MakeInpainter) -> None:
        super().__init__(make_inpainter)
        self._context = multiprocessing.get_context("spawn")
        self._stop: Event = self._context.Event()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection[Any, Any]

    def start(self) -> None:
        """Start the process, if it does not run. The first call does so too."""
        if self._process is not None and self._process.is_alive():
            return
        self.close()
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve,
            args=(theirs, self._stop, self._make_inpainter),
            name="vinpaint-fills",
            daemon=True,
        )
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process = None

    def load(self, told: Told, networks: Networks) -> None:
        """See :class:`Filler`."""
        self._call("load", told, networks)

    def pictures(
        self, told: Told, networks: Networks, frames: NDArray[np.uint8], mask: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """See :class:`Filler`."""
        filled: NDArray[np.uint8] = self._call("pictures", told, networks, frames, mask)
        return filled

    def video(
        self, told: Told, networks: Networks, options: Mapping[str, Any]
    ) -> tuple[Report, list[str]]:
        """See :class:`Filler`."""
        filled: tuple[Report, list[str]] = self._call("video", told, networks, options)
        return filled

    def _call(self, name: str, told: Told, *given: Any) -> Any:
        self._stop.clear()
        self.start()
        self._pipe.send((name, given))
        heard = ("", 0, 0)
        while True:
            if (message := self._receive(HEARING_SECONDS)) is not None:
                kind, value = message
                if kind == "done":
                    return value
                if kind == "failed":
                    raise value
                heard = value
            try:
                told(*heard)
            except BaseException:
                self._cancel()
                raise

    def _receive(self, seconds: float) -> tuple[str, Any] | None:
        """What the process says; ``None`` if it says nothing for some seconds. Raises RuntimeError if it has ended."""
        try:
            if not self._pipe.poll(seconds):
                return None
            message: tuple[str, Any] = self._pipe.recv()
            return message
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(f"the process that fills has ended ({self._end()})") from error

    def _cancel(self) -> None:
        """Have the work end, or the process if it does not."""
        self._stop.set()
        with suppress(RuntimeError):
            while (message := self._receive(ENDING_SECONDS)) is not None:
                if message[0] != "told":
                    return
            self.close()

    def _end(self) -> str:
        """Clear away a process that has ended; how it did."""
        assert self._process is not None
        self._process.join()
        code = self._process.exitcode or 0
        self.close()
        if code >= 0:
            return f"exit status {code}"
        hint = ", as when memory runs out" if code == -signal.SIGKILL else ""
        return f"{signal.Signals(-code).name}{hint}"


def _serve(pipe: Connection[Any, Any], stop: Event, make_inpainter: MakeInpainter) -> None:
    """Do what comes out of the pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one
    filler = Filler(make_inpainter)

    def told(*what: Any) -> None:
        if stop.is_set():
            raise Cancelled
        pipe.send(("told", what))

    with suppress(EOFError, ConnectionError):
        while True:
            name, given = pipe.recv()
            try:
                answer = "done", getattr(filler, name)(told, *given)
            except Exception as error:
                if not isinstance(error, (InputError, Cancelled)):
                    logger.exception(
                        "while filling"
                    )  # with where it was, which does not come along
                answer = "failed", _portable(error)
            pipe.send(answer)


def _portable(error: Exception) -> Exception:
    """The same, or what it says if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - of any kind
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
