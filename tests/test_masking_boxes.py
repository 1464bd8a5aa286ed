# SPDX-License-Identifier: Apache-2.0
"""Boxes over time from tables and subtitles."""

from __future__ import annotations

import media
import pytest

from vinpaint.errors import InputError
from vinpaint.masking import read_boxes, read_subtitles
from vinpaint.video.masks import Span, parse_box


def written(path, text):
    path.write_text(text)
    return path


def test_a_table_without_names_has_the_columns_in_their_order(tmp_path):
    path = written(tmp_path / "a.csv", "1,2,3,4\n5,6,7,8,10,20\n\n9,10,11,12,1.5s,\n")
    assert [box.text for box in read_boxes(path)] == [
        "1,2,3,4",
        "5,6,7,8@10-20",
        "9,10,11,12@1.5s-",
    ]
    assert read_boxes(path)[2].span == Span(1.5)


def test_names_put_the_columns_in_another_order(tmp_path):
    path = written(tmp_path / "a.csv", "end,X, y ,height,width\n5,1,2,4,3\n")
    assert read_boxes(path) == [parse_box("1,2,3,4@-5")]


def test_a_spreadsheets_mark_at_the_beginning_is_no_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfx,y,width,height\r\n1,2,3,4\r\n")
    assert read_boxes(path) == [parse_box("1,2,3,4")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line a box, found none in"),
        ("x,y,width\n1,2,3\n", "expected columns named x, y, width, height, start, end"),
        ("left,top,width,height\n", "got left, top, width, height in"),
        ("1,2,3,4\n1,2,3\n", r"a\.csv, line 2: expected x,y,w,h"),
        ("1,2,3,0\n", "line 1: expected a width and a height of 1 or more"),
        ("1,2,3,4,9,5\n", "line 1: expected START before END"),
        ("1,2,3,4,soon,\n", "expected a frame number"),
    ],
)
def test_a_table_that_is_wrong_is_a_sentence_that_names_the_line(tmp_path, text, message):
    with pytest.raises(InputError, match="^--boxes: .*" + message):
        read_boxes(written(tmp_path / "a.csv", text))


def test_what_is_no_table_is_a_sentence(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("a.csv", "missing.csv"):
        with pytest.raises(InputError, match="cannot be read as a CSV file"):
            read_boxes(tmp_path / name)


SUBTITLES = {
    "srt": "1\n00:00:00,500 --> 00:00:01,250\nOne\n\n2\n00:01:02,000 --> 00:01:03,000\nTwo\nlines\n\n",
    "vtt": "WEBVTT\n\n00:00.500 --> 00:01.250\nOne\n\n01:02.000 --> 01:03.000 line:0\nTwo\n",
    "ass": "[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name\nStyle: Default\n[Events]\n"
    "Format: Layer, Start, End, Style, Text\nDialogue: 0,0:00:00.50,0:00:01.25,Default,One\n"
    "Dialogue: 0,0:01:02.00,0:01:03.00,Default,Two\n",
}


@pytest.mark.parametrize("suffix", SUBTITLES)
def test_a_box_while_a_line_is_shown(tmp_path, suffix):
    path = written(tmp_path / f"lines.{suffix}", SUBTITLES[suffix])
    area = parse_box("10,80,100,20")
    boxes = read_subtitles(path, area)
    assert [(box.span.start, box.span.end) for box in boxes] == [(0.5, 1.25), (62.0, 63.0)]
    assert all((box.x, box.y, box.width, box.height) == (10, 80, 100, 20) for box in boxes)


def test_a_video_with_subtitles_in_it_serves_as_well(tmp_path):
    clip = media.write_video(tmp_path / "a.mkv", subtitles="subrip")
    boxes = read_subtitles(clip, parse_box("0,0,8,8"))
    assert [round(box.span.start, 2) for box in boxes] == [0.0, 0.2]


def test_what_has_no_subtitles_is_a_sentence(tmp_path):
    area = parse_box("0,0,8,8")
    with pytest.raises(InputError, match="expected a file with subtitles, found none in"):
        read_subtitles(media.write_video(tmp_path / "a.mp4"), area)
    for text in ("nonsense", ""):
        with pytest.raises(InputError, match=r"^--subtitles: "):
            read_subtitles(written(tmp_path / "a.srt", text), area)
    with pytest.raises(InputError, match="cannot be read as subtitles: No such file"):
        read_subtitles(tmp_path / "missing.srt", area)
