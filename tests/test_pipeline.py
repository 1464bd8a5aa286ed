# SPDX-License-Identifier: Apache-2.0
"""Background iteration: order, bounded look-ahead, errors, early stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vinpaint.pipeline import drain, prefetch


def _threads() -> int:
    return sum(t.name.startswith("vinpaint-") for t in threading.enumerate())


def test_items_keep_their_order() -> None:
    assert list(prefetch(range(100), depth=3)) == list(range(100))
    assert _threads() == 0


def test_work_runs_ahead_but_no_further_than_asked() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    items = prefetch(source(), depth=2)
    next(items)
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(made) == 4  # one taken, two waiting, one in hand
    items.close()


def test_an_error_of_the_source_is_raised_to_the_consumer() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("disk gone")

    items = prefetch(source(), depth=1)
    assert next(items) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(items)
    assert _threads() == 0


def test_an_early_stop_closes_the_source_and_ends_the_thread() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    items = prefetch(source(), depth=1)
    next(items)
    items.close()
    assert closed.is_set()
    assert _threads() == 0


def test_drained_items_keep_their_order_and_all_arrive() -> None:
    arrived: list[int] = []

    def consume(item: int) -> None:
        time.sleep(0.001)
        arrived.append(item)

    with drain(consume, depth=3) as put:
        for i in range(50):
            put(i)
    assert arrived == list(range(50))
    assert _threads() == 0


def test_an_error_of_the_consumer_is_raised_to_the_producer() -> None:
    def consume(item: int) -> None:
        if item == 3:
            raise OSError("disk full")

    handed = 0
    with pytest.raises(OSError, match="disk full"), drain(consume, depth=1) as put:
        for i in range(1000):
            put(i)
            handed = i
    assert handed < 10
    assert _threads() == 0


def test_an_interrupt_while_waiting_is_raised_when_the_thread_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_join, interrupts = threading.Thread.join, [KeyboardInterrupt()]

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if interrupts:
            raise interrupts.pop()
        real_join(thread, timeout)

    ended = threading.Event()

    def consume(_: int) -> None:
        time.sleep(0.2)
        ended.set()

    with pytest.raises(KeyboardInterrupt), drain(consume, depth=1) as put:
        put(1)
        time.sleep(0.05)
        monkeypatch.setattr(threading.Thread, "join", join)
        raise ValueError("stop")
    assert ended.is_set()


def test_an_error_on_the_last_item_is_not_lost() -> None:
    def consume(_: int) -> None:
        time.sleep(0.05)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), drain(consume, depth=4) as put:
        put(1)


def test_an_error_of_the_producer_drops_what_waits() -> None:
    arrived: list[int] = []

    def consume(item: int) -> None:
        time.sleep(0.05)
        arrived.append(item)

    with pytest.raises(KeyboardInterrupt), drain(consume, depth=10) as put:
        for i in range(10):
            put(i)
        raise KeyboardInterrupt
    assert len(arrived) < 10
    assert _threads() == 0
