# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import media
import numpy as np
import pytest
from PIL import Image

from vinpaint.video.preview import ContactSheet, marked, side_by_side, side_by_side_size
from vinpaint.video.reader import open_clip


def fill_sheet(sheet, count, size=(32, 24)):
    hole = np.zeros((size[1], size[0]), np.uint8)
    hole[4:12, 6:20] = 255
    for index in range(count):
        rgb = media.scene(index, *size)
        sheet.add(FakeFrame(index, rgb), rgb, hole)
    return [int(row.label.split()[1]) for row in sheet._rows]


class FakeFrame:
    def __init__(self, index, rgb):
        self.index, self.time, self.rgb = index, index / 25, rgb


def test_a_known_count_is_spread_from_first_to_last():
    assert fill_sheet(ContactSheet(100, rows=5), 100) == [0, 25, 50, 74, 99]
    assert fill_sheet(ContactSheet(2, rows=5), 2) == [0, 1]


@pytest.mark.parametrize("size", [(64, 36), (36, 64), (640, 360)])
def test_the_sheet_is_one_png_of_bounded_width(tmp_path, size):
    sheet = ContactSheet(6, rows=6)
    fill_sheet(sheet, 6, size)
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert 700 < picture.width <= 1600
        assert picture.height < 1400
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_a_sheet_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        ContactSheet(1).save(tmp_path / "sheet.png")


def test_deep_pictures_are_shown_in_eight_bits():
    deep = media.scene(0, 32, 24).astype(np.uint16) * 257
    hole = np.zeros((24, 32), np.uint8)
    assert np.array_equal(marked(deep, hole), media.scene(0, 32, 24))


def test_the_hole_is_marked_and_nothing_else():
    picture = np.full((24, 32, 3), 100, np.uint8)
    hole = np.zeros((24, 32), np.uint8)
    hole[5:15, 5:15] = 255
    shown = marked(picture, hole)
    assert (shown[hole == 0] == 100).all()
    assert (shown[10, 10] != 100).any()
    assert (picture == 100).all()


def test_side_by_side_has_even_sides():
    left, right = media.scene(0, 31, 23), media.scene(1, 31, 23)
    both = side_by_side(left, right)
    assert both.shape == (24, 66, 3)
    assert side_by_side_size(31, 23) == (66, 24)
    assert np.array_equal(both[:23, :31], left)
    assert np.array_equal(both[:23, 35:66], right)


def test_a_frame_of_a_clip_can_be_added(tmp_path):
    clip = open_clip(media.write_video(tmp_path / "a.mp4", frames=4))
    sheet = ContactSheet(4, rows=4)
    for frame in clip.frames():
        sheet.add(frame, frame.rgb, np.zeros(frame.rgb.shape[:2], bool))
    sheet.save(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()
