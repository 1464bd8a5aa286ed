# SPDX-License-Identifier: Apache-2.0
"""The process that fills for the page: what it gives back, and what ends it."""

from __future__ import annotations

import warnings

import media
import numpy as np
import pytest
from fillers import make_inpainter

from vinpaint.errors import InputWarning
from vinpaint.video.reader import open_clip
from vinpaint.web.jobs import Cancelled
from vinpaint.web.worker import KEPT_INPAINTERS, LocalFiller, Worker

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


def test_it_fills_as_one_in_this_process_does(worker, tmp_path):
    here = LocalFiller(make_inpainter)
    there = worker.pictures(silent, {}, FRAMES, MASK)
    assert np.array_equal(there, here.pictures(silent, {}, FRAMES, MASK))

    clip = media.write_video(tmp_path / "a.mkv", frames=20)
    options = {"input": clip, "boxes": ["20,10,12,8@3-9"]}
    filled = []
    for name, filler in (("there.mkv", worker), ("here.mkv", here)):
        heard = []
        output = tmp_path / name
        report, warned = filler.video(
            lambda *told, heard=heard: heard.append(told), {}, {**options, "output": output}
        )
        assert (report.frames, report.hole_frames, warned) == (20, 7, [])
        assert heard[-1] == ("Filling", 20, 20)
        filled.append([frame.rgb for frame in open_clip(output).frames()])
    assert np.array_equal(*filled)


def test_what_it_does_is_told():
    worker, heard = Worker(make_inpainter), []
    try:
        worker.pictures(lambda *told: heard.append(told), {}, FRAMES, MASK)
    finally:
        worker.close()
    phases = dict.fromkeys(phase for phase, *_ in heard)
    assert list(phases) == ["", "Loading the networks", "Filling some frames"]


def test_what_is_cancelled_ends_and_leaves_no_file(worker, tmp_path):
    clip = media.write_video(tmp_path / "a.mkv", frames=200)

    def told(phase, done, _total):
        if phase == "Filling" and done > 5:
            raise Cancelled

    given = {"input": clip, "boxes": ["20,10,12,8"], "output": tmp_path / "b.mkv"}
    with pytest.raises(Cancelled):
        worker.video(told, {}, given)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    phases = []
    worker.pictures(lambda *told: phases.append(told[0]), {}, FRAMES, MASK)
    assert "Loading the networks" not in phases  # they are still there


def test_warnings_come_along(worker, tmp_path):
    clip = media.write_video(tmp_path / "a.mkv", frames=3)
    mask = media.write_image(tmp_path / "black.png", np.zeros((48, 64), np.uint8))
    given = {"input": clip, "mask": mask, "output": tmp_path / "b.mkv"}
    _, (warning,) = worker.video(silent, {}, given)
    assert "the mask is empty in every frame" in warning


def test_other_warnings_go_where_they_would(tmp_path):
    def make():
        warnings.warn("of the server's", InputWarning, stacklevel=1)
        inpainter = make_inpainter()
        fill = inpainter.fill

        def odd(*given):
            warnings.warn("of some library", UserWarning, stacklevel=1)
            return fill(*given)

        inpainter.fill = odd
        return inpainter

    clip = media.write_video(tmp_path / "a.mkv", frames=3)
    given = {"input": clip, "boxes": ["20,10,12,8"], "output": tmp_path / "b.mkv"}
    with pytest.warns() as caught:
        _, warned = LocalFiller(make).video(silent, {}, given)
    assert warned == []
    assert {str(warning.message) for warning in caught} == {"of the server's", "of some library"}


def test_only_the_networks_used_last_are_kept():
    made = []
    filler = LocalFiller(lambda number: made.append(number) or (lambda frames, _mask: frames))
    for number in [*range(KEPT_INPAINTERS), 0, KEPT_INPAINTERS, 0, 1]:
        filler.pictures(silent, {"number": number}, FRAMES, MASK)
    assert made == [*range(KEPT_INPAINTERS), KEPT_INPAINTERS, 1]
