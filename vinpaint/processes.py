# SPDX-License-Identifier: Apache-2.0
"""A process of its own that is asked for one thing after another, through a pipe."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

from vinpaint.errors import InputError

Tell = Callable[[Any], None]
"""Called by what does a request with whatever is to be heard meanwhile. Raises what ends the work, if it is to end."""

Do = Callable[[Any, Tell], Any]
"""Does a request."""

LISTEN_SECONDS = 0.2
"""After which a caller who has heard nothing may end the work all the same."""

STOP_SECONDS = 15.0
"""That work which is to end has for it, before its process is ended."""

_STOP = "stop"

logger = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Raised inside work whose caller ended it."""


class ProcessEndedError(RuntimeError):
    """The process ended by itself: it crashed, or the system or somebody ended it."""


class ChildProcess:
    """A process that does what it is asked for, started from nothing when it is first needed, and again if it has ended.

    Its end is not the end of this one; the end of this one, however it comes, is its end. A script that makes one has its
    own work under ``if __name__ == "__main__":``, as :mod:`multiprocessing` demands. One thread at a time may use it.

    Args:
        make: called there with ``given``; makes what does the requests. Both can be pickled.
        given: its arguments.
        name: of the process, in messages.
    """

    def __init__(self, make: Callable[..., Do], *given: Any, name: str) -> None:
        self._make, self._given, self._name = make, given, name
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._ready = False

    def start(self) -> None:
        """Begin to start the process, if it does not run. Otherwise the next request does.

        Raises:
            OSError: the system has no room for another process.
            Exception: what pickle says of what cannot be pickled, of any kind.
        """
        if self._process is not None and self._process.is_alive():
            return
        self.close()
        context = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        process = context.Process(
            target=_serve, args=(far, self._make, self._given), name=self._name, daemon=True
        )
        # Ctrl-C is for this process, from the child's first instruction on.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        except BaseException:
            near.close()
            raise
        finally:
            far.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._process, self._pipe, self._ready = process, near, False

    def ask(self, request: Any, listen: Callable[[Any], None] = lambda _told: None) -> Any:
        """Have a request done.

        Args:
            request: what :data:`Do` takes; can be pickled.
            listen: called with what the work tells, and with ``None`` where it has told nothing for a moment. What it raises
                ends the work, or the process if it does not end, and is raised.

        Returns:
            What the work returned.

        Raises:
            ProcessEndedError: the process has ended meanwhile.
            Exception: what pickle says of a request that cannot be pickled; what the work raised, without its traceback; RuntimeError if that cannot be pickled. After
                anything but InputError and OSError the process is started anew: a broken library may have stayed behind.
        """
        self.start()
        if not self._ready:
            self._answer(listen)
            self._ready = True
        data = ForkingPickler.dumps(request)
        try:
            self._send(data)
            kind, value = answer = self._answer(listen)
        except ProcessEndedError:
            raise
        except BaseException:
            self._stop()
            raise
        if kind == "done":
            return value
        if _is_broken(answer):
            self.close()
        raise value

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _send(self, pickled: Any) -> None:
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(pickled)
        except OSError as error:
            raise self._ended() from error

    def _answer(self, listen: Callable[[Any], None]) -> tuple[str, Any]:
        while True:
            message = self._receive(LISTEN_SECONDS)
            if message is None:
                listen(None)
            elif message[0] == "told":
                listen(message[1])
            else:
                return message

    def _receive(self, seconds: float) -> tuple[str, Any] | None:
        """What kind of message has come, and with what; ``None`` if none came for some seconds."""
        assert self._pipe is not None
        try:
            if not self._pipe.poll(seconds):
                return None
            message: tuple[str, Any] = self._pipe.recv()
            return message
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _stop(self) -> None:
        """End the work, or the process."""
        until = time.monotonic() + STOP_SECONDS
        try:
            self._send(ForkingPickler.dumps(_STOP))
            while (left := until - time.monotonic()) > 0:
                message = self._receive(left)
                if message is not None and message[0] != "told":
                    if _is_broken(message):
                        break
                    return
        except ProcessEndedError:
            return
        self.close()

    def _ended(self) -> ProcessEndedError:
        """Clear away a process that is ending; the error that says how it did."""
        process, how = self._process, "closed"
        if process is not None:
            process.join(STOP_SECONDS)
            how = _how(process.exitcode)
        self.close()
        return ProcessEndedError(f"{self._name} has ended ({how})")


def end_with_parent() -> None:
    """Have this process end when the one that started it does, whatever both of them do then."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_broken(answer: tuple[str, Any]) -> bool:
    """Whether work failed by itself, and may have left a library behind that fails from then on, such as CUDA's."""
    kind, value = answer
    return kind == "failed" and not isinstance(value, (InputError, OSError, Stopped))


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    if code == -signal.SIGKILL:
        return "SIGKILL, as when memory runs out"
    names = {number.value: number.name for number in signal.Signals}
    return names.get(-code, f"signal {-code}")


def _serve(pipe: Connection, make: Callable[..., Do], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    do = make(*given)
    pipe.send(("ready", None))
    while True:
        try:
            _do_one(pipe, do)
        except (EOFError, ConnectionError):  # the other end is gone
            return


def _do_one(pipe: Connection, do: Do) -> None:
    """Do one request. All that it took is gone with the call, before the next is waited for."""
    request = pipe.recv()
    if request == _STOP:  # of work that had ended already
        return

    def tell(what: Any) -> None:
        if pipe.poll():  # nothing else comes while a request is done
            pipe.recv()
            raise Stopped
        pipe.send(("told", what))

    try:
        answer = "done", do(request, tell)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        if not isinstance(error, (InputError, Stopped)):
            logger.exception("in a process of its own")  # where it was does not come along
        answer = "failed", _portable(error)
    pipe.send(answer)


def _portable(error: Exception) -> Exception:
    """The same without its traceback, or what it says if it cannot be pickled."""
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - of any kind
        return RuntimeError(f"{type(error).__name__}: {error}")
    return copy
