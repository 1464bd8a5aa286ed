# SPDX-License-Identifier: Apache-2.0
"""What a process of its own is asked for: networks, and work that fails in every way. It imports this file."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
from models import random_model

from vinpaint.errors import InputError
from vinpaint.inpainting import Inpainter
from vinpaint.nn import InpainterConfig


def make_inpainter():
    return Inpainter(random_model(InpainterConfig(width=0.125)), chunk_frames=8)


def make_work(first=0):
    """Work whose requests say what it does, with a count of them all."""
    count = first

    class LocalError(Exception):
        """Cannot be pickled."""

    def do(request, tell):
        nonlocal count
        count += 1
        what, *given = request
        tell(what)
        if what == "signal":
            os.kill(os.getpid(), given[0])
        if what == "sleep":
            time.sleep(60)
        if what == "tell":
            for i in range(100_000):
                tell(i)
        if what == "answer a lot":
            return os.getpid(), np.zeros(1 << 28, np.uint8)
        if what == "input":
            raise InputError("that cannot be taken")
        if what == "disk":
            raise OSError(28, "No space left on device")
        if what == "strange":
            raise LocalError("in the middle")
        return count, os.getpid()

    return do


def ask_and_wait(pipe):
    """As a server does: a child that is busy, and its number told."""
    from vinpaint.processes import ChildProcess

    def listen(told):
        if told is not None:
            pipe.send(child._process.pid)

    child = ChildProcess(make_work, name="the child")
    signal.signal(signal.SIGINT, lambda *_: pipe.send("interrupted"))
    child.ask(("sleep",), listen)
