# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from fractions import Fraction

import av
import media
import numpy as np
import pytest

from vinpaint.errors import InputError, InputWarning
from vinpaint.video.reader import open_clip
from vinpaint.video.writer import RgbVideoWriter, VideoWriter, open_writer

FORMATS = ["yuv420p", "yuv422p10le", "yuv444p", "yuv420p10le", "gray", "yuva420p", "gbrp10le"]


def inpaint(source, output, *, mask=None, value=0.8, **options):
    """Fill a box (or ``mask``) of every frame with one grey; returns the mask."""
    clip = open_clip(source)
    if mask is None:
        mask = np.zeros((clip.info.height, clip.info.width), np.uint8)
        mask[11:30, 15:38] = 255
    with open_writer(output, clip, **options) as writer:
        for frame in clip.frames():
            fill = np.full_like(frame.rgb, int(value * np.iinfo(frame.rgb.dtype).max))
            writer.write(frame, fill, mask)
    return mask


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_known_samples_are_untouched_bit_for_bit(tmp_path, pix_fmt):
    source = media.write_video(
        tmp_path / "a.mkv", frames=3, codec="ffv1", pix_fmt=pix_fmt, options={}
    )
    mask = inpaint(source, tmp_path / "b.mkv", codec="ffv1")
    assert open_clip(tmp_path / "b.mkv").info.pixel_format == pix_fmt
    hole = mask > 0
    pairs = zip(media.native_planes(source), media.native_planes(tmp_path / "b.mkv"), strict=True)
    for before, after in pairs:
        for a, b in zip(before, after, strict=True):
            size = 2 if pix_fmt.endswith("le") else 1
            down, across = 48 // a.shape[0], 64 * size // a.shape[1]
            shared = hole.reshape(48 // down, down, 64 // across, across).any(axis=(1, 3))
            differs = (a != b).reshape(a.shape[0], -1, size).any(axis=2)
            assert not (differs & ~shared).any()
        assert (before[0] != after[0]).any()


@pytest.mark.parametrize(("codec", "name"), [("rawvideo", "nv12"), ("rawvideo", "rgb24")])
def test_known_samples_of_interleaved_formats_are_untouched(tmp_path, codec, name):
    source = media.write_video(tmp_path / "a.nut", frames=2, codec=codec, pix_fmt=name, options={})
    inpaint(source, tmp_path / "b.nut", codec=codec)
    assert open_clip(tmp_path / "b.nut").info.pixel_format == name
    before = media.native_planes(source)[1]
    after = media.native_planes(tmp_path / "b.nut")[1]
    size = 1 if name == "nv12" else 3
    differs = (before[0] != after[0]).reshape(48, 64, size).any(axis=2)
    assert differs[11:30, 15:38].mean() > 0.9
    differs[11:30, 15:38] = False
    assert not differs.any()
    if name == "nv12":
        chroma = (before[1] != after[1]).reshape(24, 32, 2).any(axis=2)
        assert chroma.any()
        chroma[5:15, 7:19] = False
        assert not chroma.any()


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (2, 6, 6, 6)])
def test_the_fill_has_the_colour_that_was_asked_for(tmp_path, tags):
    source = media.write_video(tmp_path / "a.mkv", frames=2, codec="ffv1", tags=tags, options={})
    clip = open_clip(source)
    mask = np.zeros((48, 64), bool)
    mask[8:40, 8:40] = True
    with VideoWriter(tmp_path / "b.mkv", clip, codec="ffv1") as writer:
        for frame in clip.frames():
            fill = np.empty_like(frame.rgb)
            fill[:] = (30, 170, 220)
            writer.write(frame, fill, mask)
    filled = next(open_clip(tmp_path / "b.mkv").frames()).rgb
    assert np.abs(filled[14:34, 14:34].astype(int) - (30, 170, 220)).max() <= 2


def test_feathered_weights_blend_inside_the_hole_only(tmp_path):
    pictures = [media.scene(0, 32, 24)]
    folder = media.write_folder(tmp_path / "a", pictures)
    weights = np.zeros((24, 32), np.float32)
    weights[4:20, 4:20] = 0.25
    inpaint(folder, tmp_path / "b", mask=weights, value=1)
    filled = next(open_clip(tmp_path / "b").frames()).rgb
    expected = np.rint(pictures[0] + 0.25 * (255.0 - pictures[0]))
    assert np.array_equal(filled[4:20, 4:20], expected[4:20, 4:20])
    filled[4:20, 4:20] = pictures[0][4:20, 4:20]
    assert np.array_equal(filled, pictures[0])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_constant_rate_is_kept(tmp_path, suffix):
    rate = Fraction(24000, 1001)
    source = media.write_video(tmp_path / f"a{suffix}", frames=12, rate=rate)
    inpaint(source, tmp_path / f"b{suffix}")
    assert open_clip(source).info.rate == rate
    assert open_clip(tmp_path / f"b{suffix}").info.rate == rate


@pytest.mark.parametrize(("suffix", "subtitles"), [(".mp4", "mov_text"), (".mkv", "subrip")])
def test_everything_but_the_hole_is_kept(tmp_path, suffix, subtitles):
    stamps = [0, 40, 70, 75, 200, 240, 241, 300]
    source = media.write_video(
        tmp_path / f"a{suffix}",
        pts=stamps,
        time_base=Fraction(1, 1000),
        audio=True,
        subtitles=subtitles,
        tags=(1, 1, 1, 1),
        sample_aspect=Fraction(4, 3),
        metadata={"title": "a title"},
        chapters=[
            {
                "id": 1,
                "start": 0,
                "end": 200,
                "time_base": Fraction(1, 1000),
                "metadata": {"title": "one"},
            }
        ],
        attachment="note.txt" if suffix == ".mkv" else None,
    )
    output = tmp_path / f"b{suffix}"
    inpaint(source, output)
    assert media.shown_times(output) == media.shown_times(source)
    for kind in ("audio", "subtitle"):
        assert media.packets(output, kind) == media.packets(source, kind)
        assert media.packets(output, kind)
    before, after = open_clip(source).info, open_clip(output).info
    for name in ("width", "height", "sample_aspect", "pixel_format"):
        assert getattr(after, name) == getattr(before, name), name
    for name in ("color_range", "color_matrix", "color_primaries", "color_transfer"):
        assert getattr(after, name) == 1, name
    with av.open(str(source)) as old, av.open(str(output)) as new:
        assert [s.type for s in new.streams] == [s.type for s in old.streams]
        assert new.metadata["title"] == "a title"
        assert new.chapters()[0]["metadata"]["title"] == "one"
        text = next(s for s in new.streams if s.type == "subtitle")
        assert text.language == "eng"
        if suffix == ".mkv":
            assert new.streams.attachments[0].data == b"a small file"


def test_a_stream_that_does_not_fit_is_left_out_with_a_warning(tmp_path):
    source = media.write_video(tmp_path / "a.mkv", audio=True, subtitles="subrip")
    with pytest.warns(InputWarning, match=r"mp4 file cannot hold the stream #2 \(subtitle, srt\)"):
        inpaint(source, tmp_path / "b.mp4")
    assert media.packets(tmp_path / "b.mp4", "audio") == media.packets(source, "audio")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize(("rotation", "hflip"), [(90, False), (-90, True), (180, False)])
def test_a_rotated_clip_stays_rotated_and_the_hole_is_where_it_is_shown(
    tmp_path, suffix, rotation, hflip
):
    source = media.write_video(
        tmp_path / f"a{suffix}",
        frames=2,
        rotation=rotation,
        hflip=hflip,
        sample_aspect=Fraction(2),
    )
    info = open_clip(source).info
    mask = np.zeros((info.height, info.width), np.uint8)
    mask[5:20, 8:30] = 255
    output = tmp_path / f"b{suffix}"
    inpaint(source, output, mask=mask)
    clip = open_clip(output)
    assert (clip.info.width, clip.info.height) == (info.width, info.height)
    assert (clip.info.rotation, clip.info.sample_aspect) == (info.rotation, info.sample_aspect)
    before = next(open_clip(source).frames()).rgb.astype(int)
    after = next(clip.frames()).rgb.astype(int)
    assert np.abs(after[8:17, 11:27] - 204).max() < 12
    known = mask == 0
    assert np.abs(after - before)[known].mean() < 3


def test_a_lossless_round_trip_of_a_rotated_clip_is_exact(tmp_path):
    source = media.write_video(tmp_path / "a.mp4", frames=2, rotation=90)
    inpaint(source, tmp_path / "b.mkv", codec="ffv1")
    before = media.native_planes(source)[0][0]
    after = media.native_planes(tmp_path / "b.mkv")[0][0]
    differs = np.rot90(before != after)
    assert differs[11:30, 15:38].mean() > 0.9
    differs[11:30, 15:38] = False
    assert not differs.any()


@pytest.mark.parametrize(
    ("source", "suffix", "codec", "pix_fmt"),
    [
        ("yuv420p", ".mp4", "h264", "yuv420p"),
        ("yuv420p10le", ".mp4", "hevc", "yuv420p10le"),
        ("yuv422p10le", ".mkv", "hevc", "yuv422p10le"),
        ("yuv420p", ".webm", "vp9", "yuv420p"),
        ("gbrp", ".mp4", "h264", "yuv444p"),
        ("yuv420p", ".avi", "h264", "yuv420p"),
    ],
)
def test_codec_and_depth_follow_the_output_and_the_input(tmp_path, source, suffix, codec, pix_fmt):
    path = media.write_video(
        tmp_path / "a.nut", frames=3, codec="rawvideo", pix_fmt=source, options={}
    )
    output = tmp_path / f"b{suffix}"
    inpaint(path, output)
    clip = open_clip(output)
    assert (clip.info.codec, clip.info.pixel_format) == (codec, pix_fmt)
    assert len(list(clip.frames())) == 3
    before = next(open_clip(path).frames()).rgb.astype(int)
    after = next(clip.frames()).rgb.astype(int)
    assert np.abs(after - before)[36:].mean() < 0.02 * (255 if clip.info.bit_depth == 8 else 65535)


def test_eight_bit_rgb_is_lossless_in_ffv1(tmp_path):
    source = media.write_video(
        tmp_path / "a.nut", frames=1, codec="rawvideo", pix_fmt="rgb24", options={}
    )
    mask = inpaint(source, tmp_path / "b.mkv", codec="ffv1")
    before = next(open_clip(source).frames()).rgb
    after = next(open_clip(tmp_path / "b.mkv").frames()).rgb
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert (after[mask > 0] == 204).all()


def test_an_odd_size_is_kept(tmp_path):
    path = media.write_video(tmp_path / "a.mkv", frames=2, size=(63, 47), codec="ffv1", options={})
    inpaint(path, tmp_path / "b.mp4")
    info = open_clip(tmp_path / "b.mp4").info
    assert (info.width, info.height, info.pixel_format) == (63, 47, "yuv444p")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("b.mp4", {"codec": "ffv1"}, r"--codec: a \.mp4 file cannot hold ffv1; use \.mkv"),
        ("b.mp4", {"codec": "nonsense"}, "--codec: no encoder named nonsense"),
        ("b.mkv", {"codec": "aac"}, "--codec: aac encodes audio"),
        ("b.mkv", {"codec": "ffv1", "crf": 3}, "--crf: ffv1 has no rate factor"),
        ("b.mp4", {"pix_fmt": "pal8"}, "--pix-fmt: libx264 does not encode pal8"),
        ("b.xyz", {}, "no suffix that names a video format"),
        ("a.mp4", {"overwrite": True}, "which is read from"),
        ("missing/b.mp4", {}, r"the folder .*missing does not exist"),
        ("exists.mp4", {}, "exists; pass --overwrite"),
    ],
)
def test_bad_outputs_are_refused_before_anything_is_written(tmp_path, name, options, message):
    source = media.write_video(tmp_path / "a.mp4", frames=2)
    (tmp_path / "exists.mp4").write_text("old")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        inpaint(source, tmp_path / name, **options)
    assert sorted(tmp_path.iterdir()) == before


def fail_at_the_second_frame(clip, output, failure):
    with open_writer(output, clip, overwrite=True) as writer:
        for frame in clip.frames():
            writer.write(frame)
            if frame.index == 1:
                raise failure


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("kind", ["video", "folder"])
def test_a_failure_leaves_nothing_and_the_old_output_alone(tmp_path, kind, failure):
    if kind == "video":
        source, output = media.write_video(tmp_path / "a.mp4"), tmp_path / "b.mp4"
        output.write_text("old")
    else:
        source = media.write_folder(tmp_path / "a", [media.scene(0, 32, 24)] * 3)
        output = media.write_folder(tmp_path / "b", [media.scene(1, 32, 24)])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(failure):
        fail_at_the_second_frame(open_clip(source), output, failure)
    assert sorted(tmp_path.iterdir()) == before
    if kind == "video":
        assert output.read_text() == "old"


@pytest.mark.parametrize("kind", ["video", "folder"])
def test_overwrite_replaces_the_output(tmp_path, kind):
    if kind == "video":
        source, output = media.write_video(tmp_path / "a.mp4"), tmp_path / "b.mp4"
        output.write_text("old")
    else:
        source = media.write_folder(tmp_path / "a", [media.scene(0, 64, 48)] * 3)
        output = media.write_folder(tmp_path / "b", [media.scene(1, 64, 48)] * 9)
    inpaint(source, output, overwrite=True)
    assert len(list(open_clip(output).frames())) == len(list(open_clip(source).frames()))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, output.name])


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    source = media.write_folder(tmp_path / "a", [media.scene(0, 32, 24)])
    output = media.write_folder(tmp_path / "b", [media.scene(0, 32, 24)])
    (output / "thesis.txt").write_text("dear")
    with pytest.raises(InputError, match=r"holds more than PNG frames \(thesis\.txt\)"):
        open_writer(output, open_clip(source), overwrite=True)


def test_a_full_disk_is_an_oserror_that_names_the_output_and_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(8)]
    media.write_video(tmp_path / "a.mkv", size=(320, 240), frames=8, pictures=noise, rate=10)
    program = """
        import resource, signal, sys
        from vinpaint.video.reader import open_clip
        from vinpaint.video.writer import open_writer

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        clip = open_clip(sys.argv[1])
        try:
            with open_writer(sys.argv[2], clip, codec="ffv1") as writer:
                for frame in clip.frames():
                    writer.write(frame)
        except OSError as error:
            print(error.errno, error.filename)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), tmp_path / "a.mkv", tmp_path / "b.mkv"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == [str(errno.EFBIG), str(tmp_path / "b.mkv")]
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 3), (48, 64, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_folder_gives_a_folder_of_the_same_kind(tmp_path, shape, dtype):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype) for _ in range(3)]
    source = media.write_folder(tmp_path / "a", pictures)
    mask = inpaint(source, tmp_path / "b")
    clip = open_clip(tmp_path / "b")
    for frame, picture in zip(clip.frames(), pictures, strict=True):
        assert frame.native.dtype == dtype
        assert np.array_equal(frame.native[mask == 0], picture[mask == 0])
        assert (frame.rgb[mask > 0] == int(0.8 * np.iinfo(dtype).max)).all()
    assert sorted(p.name for p in source.iterdir()) == sorted(
        p.name for p in (tmp_path / "b").iterdir()
    )


def test_a_folder_has_no_codec_and_is_no_video(tmp_path):
    clip = open_clip(media.write_folder(tmp_path / "a", [media.scene(0, 32, 24)]))
    with pytest.raises(InputError, match="--crf: a folder of PNG frames has no such choice"):
        open_writer(tmp_path / "b", clip, crf=20)
    with pytest.raises(InputError, match="a folder of frames gives a folder"):
        open_writer(tmp_path / "b.mp4", clip)


def test_a_fill_of_another_shape_is_a_value_error(tmp_path):
    clip = open_clip(media.write_folder(tmp_path / "a", [media.scene(0, 32, 24)]))
    frame = next(clip.frames())
    with (
        pytest.raises(ValueError, match="fill and mask: expected uint8"),
        open_writer(tmp_path / "b", clip) as writer,
    ):
        writer.write(frame, frame.rgb[:, :-1], np.zeros((24, 32), np.uint8))


def test_a_comparison_video_keeps_the_time_stamps(tmp_path):
    stamps = [0, 3, 4, 9]
    source = media.write_video(tmp_path / "a.mp4", pts=stamps, time_base=Fraction(1, 100))
    clip = open_clip(source)
    with RgbVideoWriter(tmp_path / "b.mp4", clip, 128, 48) as writer:
        for frame in clip.frames():
            writer.write(frame, np.concatenate([frame.rgb] * 2, axis=1))
    assert media.shown_times(tmp_path / "b.mp4") == media.shown_times(source)
    assert open_clip(tmp_path / "b.mp4").info.width == 128
