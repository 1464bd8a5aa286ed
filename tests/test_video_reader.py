# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fractions import Fraction

import av
import media
import numpy as np
import pytest

from vinpaint.errors import InputError, InputWarning
from vinpaint.video.reader import open_clip


def test_a_clip_can_be_read_twice_and_says_what_it_is(tmp_path):
    path = media.write_video(tmp_path / "a.mp4", frames=9, audio=True)
    clip = open_clip(path)
    info = clip.info
    assert (info.kind, info.codec, info.width, info.height) == ("video", "h264", 64, 48)
    assert (info.rate, info.pixel_format, info.bit_depth) == (25, "yuv420p", 8)
    assert clip.frame_count is None
    for _ in range(2):
        frames = list(clip.frames())
        assert [frame.index for frame in frames] == list(range(9))
        assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(9)])
    assert clip.frame_count == 9
    error = np.abs(frames[3].rgb.astype(int) - media.scene(3, 64, 48))
    assert error.mean() < 5


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (2, 1, 1, 1), (1, 6, 6, 6), (2, 5, 5, 6)])
def test_colours_follow_the_matrix_and_range_of_the_stream(tmp_path, tags):
    flat = np.empty((48, 64, 3), np.uint8)
    flat[:] = (200, 60, 30)
    path = media.write_video(
        tmp_path / "a.mkv", frames=1, tags=tags, pix_fmt="yuv444p", pictures=[flat]
    )
    clip = open_clip(path)
    assert (clip.info.color_range, clip.info.color_matrix) == tags[:2]
    assert np.abs(next(clip.frames()).rgb.astype(int) - flat).max() <= 3


@pytest.mark.parametrize(("height", "matrix"), [(480, 5), (720, 1)])
def test_an_untagged_video_is_bt601_below_720_lines_and_bt709_from_there(tmp_path, height, matrix):
    yuv = np.full((height * 3 // 2, 64), 128, np.uint8)
    yuv[:height] = 100
    yuv[height + height // 4 :] = 200
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=64, height=height)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(yuv, format="yuv420p")))
        container.mux(stream.encode(None))
    red = next(open_clip(path).frames()).rgb[0, 0, 0]
    weight = {5: 1.402, 1: 1.5748}[matrix]
    assert red == pytest.approx((100 - 16) * 255 / 219 + weight * 72 * 255 / 224, abs=1)


def test_ten_bits_come_as_sixteen(tmp_path):
    deep = media.scene(0, 64, 48).astype(np.uint16) * 257
    path = media.write_video(
        tmp_path / "a.mkv",
        frames=1,
        codec="ffv1",
        pix_fmt="yuv444p10le",
        options={},
        pictures=[deep],
    )
    clip = open_clip(path)
    rgb = next(clip.frames()).rgb
    assert clip.info.bit_depth == 10
    assert rgb.dtype == np.uint16
    assert np.abs(rgb.astype(int) - deep).max() < 256
    thumbnail = next(clip.thumbnails(32))
    assert thumbnail.image.shape == (24, 32, 3)
    assert thumbnail.image.dtype == np.uint8


@pytest.mark.parametrize(
    ("rotation", "hflip"), [(0, True), (90, False), (180, False), (-90, False), (90, True)]
)
def test_a_rotated_video_is_given_as_it_is_shown(tmp_path, rotation, hflip):
    path = media.write_video(tmp_path / "a.mp4", frames=1, rotation=rotation, hflip=hflip)
    clip = open_clip(path)
    frame = next(clip.frames())
    stored = media.scene(0, 64, 48)
    shown = np.rot90(stored, rotation // 90)
    if hflip:
        shown = shown[:, ::-1]
    assert frame.rgb.shape == shown.shape == (clip.info.height, clip.info.width, 3)
    assert np.abs(frame.rgb.astype(int) - shown).mean() < 6
    assert next(clip.thumbnails()).image.shape == shown.shape


def test_sample_aspect_is_as_shown(tmp_path):
    path = media.write_video(
        tmp_path / "a.mp4", frames=2, rotation=90, sample_aspect=Fraction(4, 3)
    )
    assert open_clip(path).info.sample_aspect == Fraction(3, 4)


def test_variable_time_stamps_are_exact(tmp_path):
    stamps = [0, 7, 8, 30, 31, 90]
    path = media.write_video(tmp_path / "a.mp4", pts=stamps, time_base=Fraction(1, 90000))
    clip = open_clip(path)
    got = [frame.pts * clip.info.time_base for frame in clip.frames()]
    assert got == [Fraction(stamp, 90000) for stamp in stamps]


def test_a_raw_stream_without_time_stamps_gets_the_frame_rate(tmp_path):
    path = media.write_video(tmp_path / "a.h264", frames=6)
    times = [frame.time for frame in open_clip(path).frames()]
    assert times == pytest.approx([i / 25 for i in range(6)], abs=1e-3)


def test_avi_has_no_stamps_and_still_starts_at_zero(tmp_path):
    path = media.write_video(
        tmp_path / "a.avi", frames=9, options={"bf": "0"}, time_base=Fraction(1, 25)
    )
    clip = open_clip(path)
    assert [frame.pts * clip.info.time_base for frame in clip.frames()] == [
        Fraction(i, 25) for i in range(9)
    ]


@pytest.mark.parametrize(("name", "share"), [("a.mp4", 0.6), ("a.mkv", 0.6), ("a.flv", 0.9)])
def test_a_truncated_file_is_refused_unless_allowed(tmp_path, name, share):
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    whole = media.write_video(
        tmp_path / "whole.mp4", frames=40, size=(160, 120), options={"crf": "12", "g": "8"}
    )
    with av.open(str(whole)) as source, av.open(str(tmp_path / name), "w", options=options) as to:
        copy = to.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                to.mux(packet)
    short = media.truncate(tmp_path / name, share)
    with pytest.raises(InputError, match=r"cut short or damaged.*--allow-truncated"):
        list(open_clip(short, allow_truncated=False).thumbnails())
    with pytest.raises(InputError, match=r"get a whole copy$"):  # a caller without that option
        list(open_clip(short).thumbnails())
    with pytest.warns(InputWarning, match="cut short or damaged"):
        clip, count = count_frames(short)
    assert 0 < count < 40
    assert clip.frame_count == count
    assert len(list(open_clip(tmp_path / name).frames())) == 40


def count_frames(path):
    clip = open_clip(path, allow_truncated=True)
    return clip, len(list(clip.frames()))


def test_what_is_no_video_is_said(tmp_path):
    with pytest.raises(InputError, match=r"INPUT: no such file.*missing\.mp4"):
        open_clip(tmp_path / "missing.mp4")
    text = tmp_path / "notes.mp4"
    text.write_text("hello")
    with pytest.raises(InputError, match="cannot be read as a video"):
        open_clip(text)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        open_clip(tmp_path / "empty")
    sound = tmp_path / "sound.m4a"
    with av.open(str(sound), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="has no video stream, only: audio"):
        open_clip(sound)


def test_a_folder_is_read_in_natural_order(tmp_path):
    pictures = [media.scene(i, 32, 24) for i in range(11)]
    clip = open_clip(media.write_folder(tmp_path / "frames", pictures))
    assert (clip.info.kind, clip.frame_count, clip.info.pixel_format) == ("folder", 11, "rgb24")
    for frame, picture in zip(clip.frames(), pictures, strict=True):
        assert np.array_equal(frame.rgb, picture)
    assert frame.name == "frame11"
    assert next(clip.thumbnails(16, gray=True)).image.shape == (12, 16)


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 3), (24, 32, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_alpha_and_sixteen_bits_of_a_folder_are_kept(tmp_path, shape, dtype):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    clip = open_clip(media.write_folder(tmp_path / "frames", [picture]))
    frame = next(clip.frames())
    assert np.array_equal(frame.native, picture)
    assert frame.rgb.shape == (24, 32, 3)
    assert frame.rgb.dtype == dtype


def test_a_folder_with_frames_that_do_not_fit_together_is_refused(tmp_path):
    folder = media.write_folder(tmp_path / "frames", [media.scene(0, 32, 24)] * 2)
    media.write_image(folder / "frame3.png", media.scene(0, 30, 24))
    with pytest.raises(InputError, match=r"frame3\.png is 30 x 24.*frame1\.png is 32 x 24"):
        list(open_clip(folder).frames())
    media.write_image(folder / "frame3.png", media.scene(0, 32, 24).astype(np.uint16))
    with pytest.raises(InputError, match="16 bits a channel"):
        list(open_clip(folder).frames())
    media.truncate(folder / "frame1.png", 0.5, "frame3.png")
    with pytest.raises(InputError, match=r"frame3\.png cannot be read as a picture"):
        list(open_clip(folder).frames())
    media.write_image(folder / "frame2.jpg", media.scene(0, 32, 24))
    with pytest.raises(InputError, match=r"the same file frame2\.png"):
        open_clip(folder)
