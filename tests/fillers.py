# SPDX-License-Identifier: Apache-2.0
"""Networks for a process of its own to make, which imports this file: such that work, and such that fail."""

from __future__ import annotations

import os
import signal
import time

from models import random_model

from vinpaint.errors import InputError
from vinpaint.inpainting import Inpainter
from vinpaint.nn import InpainterConfig


class Failing:
    """In place of networks: fails as it is told."""

    def __init__(self, how):
        self.how = how

    def __call__(self, _frames, _mask):
        if self.how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "sleep":
            time.sleep(60)
        if self.how == "input":
            raise InputError("such a mask cannot be taken")
        if self.how == "disk":
            raise OSError(28, "No space left on device")

        class LocalError(Exception):
            """Cannot be pickled."""

        raise LocalError("in the middle")


def make_inpainter(how="works"):
    if how == "missing":
        raise InputError("no such weights")
    if how != "works":
        return Failing(how)
    return Inpainter(random_model(InpainterConfig(width=0.125)), chunk_frames=8)
