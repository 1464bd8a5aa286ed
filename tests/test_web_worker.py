# SPDX-License-Identifier: Apache-2.0
"""The process that fills for the page: what it gives back, and what ends it."""

from __future__ import annotations

import os
import signal
import threading
import time

import media
import numpy as np
import pytest
from fillers import make_inpainter

from vinpaint.errors import InputError
from vinpaint.video.reader import open_clip
from vinpaint.web import worker as module
from vinpaint.web.jobs import Cancelled
from vinpaint.web.worker import KEPT_INPAINTERS, Filler, Worker

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 3), np.uint8)
MASK = np.zeros(FRAMES.shape[:3], np.uint8)
MASK[:, 10:20, 8:20] = 255


def silent(*_told):
    pass


@pytest.fixture(scope="module")
def worker():
    worker = Worker(make_inpainter)
    yield worker
    worker.close()


def works(worker):
    return worker.pictures(silent, {}, FRAMES, MASK).shape == FRAMES.shape


def test_it_fills_as_one_in_this_process_does(worker, tmp_path):
    here = Filler(make_inpainter)
    heard = []
    there = worker.pictures(lambda *told: heard.append(told), {}, FRAMES, MASK)
    assert np.array_equal(there, here.pictures(silent, {}, FRAMES, MASK))
    phases = list(dict.fromkeys(phase for phase, *_ in heard if phase))
    assert phases == ["Loading the networks", "Filling some frames"]

    clip = media.write_video(tmp_path / "a.mkv", frames=20)
    options = {"input": clip, "boxes": ["20,10,12,8@3-9"]}
    heard.clear()
    filled = []
    for name, filler in (("there.mkv", worker), ("here.mkv", here)):
        output = tmp_path / name
        report, warned = filler.video(
            lambda *told: heard.append(told), {}, {**options, "output": output}
        )
        assert (report.frames, report.hole_frames, warned) == (20, 7, [])
        filled.append([frame.rgb for frame in open_clip(output).frames()])
    assert np.array_equal(*filled)
    assert heard.count(("Filling", 20, 20)) == 2


def test_warnings_come_along(worker, tmp_path):
    clip = media.write_video(tmp_path / "a.mkv", frames=3)
    mask = media.write_image(tmp_path / "black.png", np.zeros((48, 64), np.uint8))
    given = {"input": clip, "mask": mask, "output": tmp_path / "b.mkv"}
    _, (warning,) = worker.video(silent, {}, given)
    assert "the mask is empty in every frame" in warning


def test_what_is_raised_there_is_raised_here(worker):
    with pytest.raises(InputError, match="no such weights"):
        worker.load(silent, {"how": "missing"})
    with pytest.raises(InputError, match="such a mask cannot"):
        worker.pictures(silent, {"how": "input"}, FRAMES, MASK)
    with pytest.raises(OSError, match="No space left") as caught:
        worker.pictures(silent, {"how": "disk"}, FRAMES, MASK)
    assert caught.value.errno == 28
    with pytest.raises(RuntimeError, match="LocalError: in the middle"):
        worker.pictures(silent, {"how": "strange"}, FRAMES, MASK)
    assert works(worker)


def test_a_process_that_dies_is_told_of_and_replaced(worker):
    with pytest.raises(RuntimeError, match=r"the process that fills has ended \(SIGSEGV\)"):
        worker.pictures(silent, {"how": "crash"}, FRAMES, MASK)
    assert works(worker)
    os.kill(worker._process.pid, signal.SIGKILL)  # while it has nothing to do
    worker._process.join()
    assert works(worker)
    threading.Timer(1, lambda: os.kill(worker._process.pid, signal.SIGKILL)).start()
    with pytest.raises(RuntimeError, match="SIGKILL, as when memory runs out"):
        worker.pictures(silent, {"how": "sleep"}, FRAMES, MASK)
    assert works(worker)


def test_what_is_cancelled_ends_and_leaves_no_file(worker, tmp_path):
    clip = media.write_video(tmp_path / "a.mkv", frames=200)
    assert works(worker)
    process = worker._process

    def told(phase, done, _total):
        if phase == "Filling" and done > 5:
            raise Cancelled

    given = {"input": clip, "boxes": ["20,10,12,8"], "output": tmp_path / "b.mkv"}
    with pytest.raises(Cancelled):
        worker.video(told, {}, given)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    assert works(worker)
    assert worker._process is process  # its networks are still loaded


def test_what_does_not_hear_that_it_was_cancelled_is_ended(worker, monkeypatch):
    monkeypatch.setattr(module, "ENDING_SECONDS", 0.5)
    assert works(worker)
    start = time.monotonic()

    def told(*_what):
        if time.monotonic() - start > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        worker.pictures(told, {"how": "sleep"}, FRAMES, MASK)
    assert time.monotonic() - start < 10
    assert works(worker)


def test_only_the_networks_used_last_are_kept():
    made = []
    filler = Filler(lambda number: made.append(number) or (lambda frames, _mask: frames))
    for number in [*range(KEPT_INPAINTERS), 0, KEPT_INPAINTERS, 0, 1]:
        filler.pictures(silent, {"number": number}, FRAMES, MASK)
    assert made == [*range(KEPT_INPAINTERS), KEPT_INPAINTERS, 1]
