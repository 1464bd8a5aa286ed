# SPDX-License-Identifier: Apache-2.0
"""Threads at both ends of the network, so that decoding, network and encoding overlap.

The network stays in the caller's thread: there Ctrl-C reaches it between two layers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Channel(Generic[T]):
    """A bounded queue between two threads, either of which may give up."""

    def __init__(self, depth: int) -> None:
        self._items: queue.Queue[T | None] = queue.Queue(depth)  # None: the end
        self._stopped = threading.Event()
        self.error: BaseException | None = None

    def put(self, item: T | None) -> bool:
        """Wait for room; False once the other side has given up."""
        while not self._stopped.is_set():
            try:
                self._items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def get(self) -> T | None:
        """Wait for an item; None at the end, or once the other side has given up."""
        while not self._stopped.is_set():
            try:
                return self._items.get(timeout=0.1)
            except queue.Empty:
                continue
        return None

    def stop(self) -> None:
        self._stopped.set()


def _start(work: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=f"vinpaint-{name}", daemon=True)
    thread.start()
    return thread


def _finish(thread: threading.Thread) -> None:
    """Wait for ``thread``. A Ctrl-C meanwhile is raised only then: what it uses is still open."""
    interrupt = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def prefetch(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield ``items``, which may not be None, at most ``depth`` of them made ahead in a thread.

    An exception of ``items`` is raised here. When the consumer stops early, the thread ends at its
    next item and a source that can be closed is closed.
    """
    channel: _Channel[T] = _Channel(depth)

    def produce() -> None:
        source = iter(items)
        try:
            for item in source:
                if not channel.put(item):
                    break
        except BaseException as error:  # noqa: BLE001 - raised in the consumer's thread
            channel.error = error
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
            channel.put(None)

    thread = _start(produce, "prefetch")
    try:
        while (item := channel.get()) is not None:
            yield item
    finally:
        channel.stop()
        _finish(thread)
    if channel.error is not None:
        raise channel.error


@contextmanager
def drain(consume: Callable[[T], None], depth: int) -> Iterator[Callable[[T], None]]:
    """Give a function that hands items, at most ``depth`` ahead, to ``consume`` in a thread.

    Leaving the block waits until all are consumed, or, with an exception, drops the rest. An
    exception of ``consume`` is raised by the next call or on leaving.
    """
    channel: _Channel[T] = _Channel(depth)

    def work() -> None:
        try:
            while (item := channel.get()) is not None:
                consume(item)
        except BaseException as error:  # noqa: BLE001 - raised in the producer's thread
            channel.error = error
            channel.stop()

    def hand_over(item: T) -> None:
        if not channel.put(item) and channel.error is not None:
            raise channel.error

    thread = _start(work, "drain")
    try:
        yield hand_over
        channel.put(None)
        thread.join()
    finally:
        channel.stop()
        _finish(thread)
    if channel.error is not None:
        raise channel.error
