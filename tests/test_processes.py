# SPDX-License-Identifier: Apache-2.0
"""A process of its own: what it gives back, what ends it, and that it ends when it should."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fillers import ask_and_wait, make_work
from waiting import until

from vinpaint import processes
from vinpaint.errors import InputError
from vinpaint.processes import ChildProcess, ProcessEndedError


class Enough(Exception):  # noqa: N818 - as of a visitor who has cancelled
    pass


@pytest.fixture(scope="module")
def child():
    child = ChildProcess(make_work, name="the child")
    yield child
    child.close()


def pid(child):
    """Of the process, which works."""
    return child.ask(("count",))[1]


def is_gone(process):
    """Ended, whether somebody asked how or not."""
    try:
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True


def test_it_is_started_once_and_keeps_what_it_has(child):
    (first, one), (second, two) = child.ask(("count",)), child.ask(("count",))
    assert (second, two) == (first + 1, one)
    assert one != os.getpid()
    heard = []
    child.ask(("count",), heard.append)
    assert [told for told in heard if told is not None] == ["count"]


def test_arguments_come_along():
    child = ChildProcess(make_work, 40, name="the child")
    assert child.ask(("count",))[0] == 41
    child.close()


def test_what_is_raised_there_is_raised_here(child):
    before = pid(child)
    with pytest.raises(InputError, match="that cannot be taken"):
        child.ask(("input",))
    with pytest.raises(OSError, match="No space left") as caught:
        child.ask(("disk",))
    assert caught.value.errno == 28
    assert pid(child) == before
    with pytest.raises(RuntimeError, match="LocalError: in the middle"):
        child.ask(("strange",))
    assert pid(child) != before  # who knows what is broken in there
    assert is_gone(before)


@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGSEGV, r"SIGSEGV"),
        (signal.SIGKILL, "SIGKILL, as when memory runs out"),
        (signal.SIGRTMIN + 1, "(signal|SIGRTMIN).*"),
    ],
)
def test_its_end_is_told_of_and_it_is_started_anew(child, number, how):
    with pytest.raises(ProcessEndedError, match=rf"the child has ended \({how}\)"):
        child.ask(("signal", number))
    assert pid(child)


def test_its_end_while_it_has_nothing_to_do_is_not_noticed(child):
    before = pid(child)
    os.kill(before, signal.SIGKILL)
    until(lambda: not child._process.is_alive())
    assert pid(child) != before


def test_its_end_in_the_middle_of_an_answer(child):
    process, heard = pid(child), []

    def end(_told):
        heard.append(1)
        if len(heard) == 1:
            # So much does not fit into the pipe: it is on its way until it is read here.
            until(lambda: resident(process) > 256 << 20)
            time.sleep(0.2)
            os.kill(process, signal.SIGKILL)

    with pytest.raises(ProcessEndedError, match="SIGKILL"):
        child.ask(("answer a lot",), end)
    assert pid(child)


def resident(process):
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_its_end_while_a_request_is_sent(child):
    process = pid(child)
    os.kill(process, signal.SIGSTOP)  # so much does not fit into the pipe
    threading.Timer(0.5, os.kill, (process, signal.SIGKILL)).start()
    with pytest.raises(ProcessEndedError, match="SIGKILL"):
        child.ask(("count", np.zeros(1 << 26, np.uint8)))
    assert pid(child)


def test_what_hears_that_it_shall_end_ends(child):
    before = pid(child)

    def listen(told):
        if told == 10:
            raise Enough

    with pytest.raises(Enough):
        child.ask(("tell",), listen)
    assert pid(child) == before


def test_what_does_not_hear_it_is_ended(child, monkeypatch):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    before, heard = pid(child), []

    def listen(told):
        heard.append(told)
        if "sleep" in heard and told is None:
            raise Enough

    with pytest.raises(Enough):
        child.ask(("sleep",), listen)
    assert is_gone(before)
    assert pid(child)


def test_who_waits_for_the_start_can_go_and_it_goes_on_starting():
    child = ChildProcess(make_work, name="the child")

    def listen(told):
        assert told is None
        raise Enough

    with pytest.raises(Enough):
        child.ask(("count",), listen)
    process = child._process.pid
    assert child.ask(("count",)) == (1, process)
    child.close()
    assert is_gone(process)


def test_what_cannot_be_sent_is_said_and_nothing_is_left(child):
    broken = ChildProcess(lambda: None, name="the child")
    for _ in range(2):
        with pytest.raises(Exception, match="pickle"):
            broken.start()
        broken.close()
    before = pid(child)
    with pytest.raises(Exception, match="pickle"):
        child.ask(("count", lambda: None))
    assert pid(child) == before


def test_it_ends_with_who_started_it_though_it_is_busy_and_not_by_ctrl_c():
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    parent = context.Process(target=ask_and_wait, args=(far,))
    parent.start()
    assert near.poll(60)
    process = near.recv()
    for each in (parent.pid, process):
        os.kill(each, signal.SIGINT)
    assert near.poll(20)
    assert near.recv() == "interrupted"
    assert not is_gone(process)
    parent.kill()
    parent.join()
    until(lambda: is_gone(process))
