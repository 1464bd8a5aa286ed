# SPDX-License-Identifier: Apache-2.0
"""What a visitor does, without the page: a clip, its hole, what was filled."""

from __future__ import annotations

import errno
import shlex
import warnings

import media
import numpy as np
import pytest
from models import random_model

from vinpaint.cli import main
from vinpaint.errors import InputError, InputWarning
from vinpaint.inpainting import Inpainter
from vinpaint.nn import InpainterConfig
from vinpaint.video.masks import parse_box
from vinpaint.video.reader import open_clip
from vinpaint.web.jobs import Cancelled, Job, Jobs
from vinpaint.web.project import TRIED_FRAMES, VIDEO, Limits, Project
from vinpaint.web.wording import ended
from vinpaint.web.worker import LocalFiller

WIDTH, HEIGHT, FRAMES = 64, 48, 30
OPTIONS = {"dilate": 0, "invert": False, "feather": 0, "mask_resize": False}


def silent(*_told):
    pass


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(random_model(InpainterConfig(width=0.125)), chunk_frames=8)


@pytest.fixture(scope="module")
def filler(inpainter):
    return LocalFiller(lambda: inpainter)


@pytest.fixture
def upload(tmp_path):
    return media.write_video(tmp_path / "my clip.mp4", frames=FRAMES, audio=True)


@pytest.fixture
def project(tmp_path, upload):
    project = Project(tmp_path / "project", Limits(frames=FRAMES))
    load(project, upload)
    return project


def load(project, upload, told=silent, **options):
    project.load(project.receive(upload), told, **options)


def add_file(project, upload):
    return project.add_file(project.receive(upload), silent)


def files(project):
    return sorted(path.name for path in project.folder.rglob("*") if path.is_file())


def paint(x=20, y=10, width=12, height=8, size=(WIDTH, HEIGHT)):
    painted = np.zeros((size[1], size[0]), np.uint8)
    painted[y : y + height, x : x + width] = 255
    return painted


def frames_of(path):
    return np.stack([frame.rgb for frame in open_clip(path).frames()])


def test_a_clip_is_read_and_described(project):
    assert project.about() == "my clip.mp4: 64 x 48, 30 frames, 25 frames/s, 1.2 s"
    assert len(project.frames) == FRAMES
    shown = project.frames.at(7).astype(int)
    assert abs(shown - media.scene(7, WIDTH, HEIGHT)).mean() < 6  # two lossy codings
    assert files(project) == ["frames", "my clip.mp4"]


@pytest.mark.parametrize("case", ["no video", "cut short", "too long", "too large"])
def test_what_is_no_video_or_too_much_is_a_sentence_and_leaves_nothing(tmp_path, upload, case):
    limits = Limits(frames=29) if case == "too long" else Limits()
    limits = Limits(pixels=63 * 48) if case == "too large" else limits
    project = Project(tmp_path / "project", limits)
    if case == "no video":
        upload = tmp_path / "text.mp4"
        upload.write_text("no video at all")
    if case == "cut short":
        upload = media.truncate(upload, 0.6)
    message = {
        "no video": "text.mp4",
        "cut short": "short-my clip.mp4",
        "too long": "This video is too long: at most 29 frames are taken here. Cut it",
        "too large": "The frames of this video are too large: at most 0.0 million pixels",
    }[case]
    with pytest.raises(InputError, match=message):
        load(project, upload)
    assert files(project) == []
    with pytest.raises(InputError, match="There is no video yet: drop one on the page"):
        project.need_clip()


def test_a_container_that_does_not_say_how_long_it_is_is_stopped_at_the_limit(tmp_path):
    upload = media.write_video(tmp_path / "a.mkv", frames=40)
    assert open_clip(upload).info.frame_count is None
    project, seen = Project(tmp_path / "project", Limits(frames=20)), []
    with pytest.raises(InputError, match="too long"):
        load(project, upload, lambda _what, done, _total: seen.append(done))
    assert max(seen) == 20
    assert files(project) == []


def test_a_file_that_is_no_video_leaves_the_clip_and_its_hole(project, tmp_path):
    project.add_box("1,1,8,8")
    before = files(project)
    (tmp_path / "b.mp4").write_text("no video")
    with pytest.raises(InputError):
        load(project, tmp_path / "b.mp4")
    assert files(project) == before
    assert len(project.parts) == 1
    assert project.about().startswith("my clip.mp4")


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.mkv", "list.srt"])
@pytest.mark.parametrize("place", ["{}", "file://{}"])
def test_a_playlist_cannot_name_files_of_the_server(project, tmp_path, name, place):
    """FFmpeg follows them: a visitor could have any video of the server filled, and download it."""
    secret = media.write_video(tmp_path / "secret.ts", frames=FRAMES, size=(WIDTH, HEIGHT))
    playlist = tmp_path / name
    playlist.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1.2,\n"
        + place.format(secret)
        + "\n#EXT-X-ENDLIST\n"
    )
    before = files(project)
    for bring in (load, add_file):
        with pytest.raises(InputError, match=name):
            bring(project, playlist)
    assert files(project) == before


def test_an_uploaded_file_is_never_written_over(project, tmp_path):
    mask = media.write_image(tmp_path / "painted-2.png", paint(40, 30, 8, 8))
    add_file(project, mask)
    for index in range(4):
        project.add_painted(paint(), index, how="always", box=False, when="")
    assert project.hole_at(0)[34, 44]
    assert mask.read_bytes()[:4] == b"\x89PNG"
    assert len({part.value for part in project.parts}) == 5


def test_a_damaged_clip_can_be_taken_for_what_it_has(project, tmp_path, filler):
    whole = media.write_video(tmp_path / "a.mkv", frames=FRAMES)
    damaged = media.truncate(whole, 0.7)
    with pytest.raises(InputError, match="--allow-truncated"):
        load(project, damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # it says what was lost
        load(project, damaged, allow_truncated=True)
        project.add_box("20,10,12,8")
        project.add_painted(paint(), 0, how="always", box=False, when="")
        filled = project.fill(filler, {}, silent, OPTIONS)
    assert filled.report.frames == len(project.frames) < FRAMES


def test_a_single_pixel_of_paint_is_a_hole_and_hundreds_are_no_boxes(project):
    dot = np.zeros((24, 32), np.uint8)
    dot[5, 7] = 1
    project.add_painted(dot, 0, how="always", box=True, when="")
    assert project.hole_at(0).any()
    dots = np.zeros((HEIGHT, WIDTH), np.uint8)
    dots[::3, ::3] = 1
    with pytest.raises(InputError, match="patches of paint are too many for boxes: at most 100"):
        project.add_painted(dots, 0, how="always", box=True, when="")


def test_files_have_a_limit(project, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("1,1,8,8\n" * 200_000)
    with pytest.raises(InputError, match=r"boxes\.csv is larger than 1 MB"):
        add_file(project, table)
    project.check_room()
    project.limits = Limits(bytes=1000)
    with pytest.raises(InputError, match="drop the video anew, which deletes"):
        project.check_room()


@pytest.mark.parametrize("frames", [1, 2])
def test_very_short_clips(tmp_path, filler, frames):
    project = Project(tmp_path / "project", Limits())
    load(project, media.write_video(tmp_path / "a.mkv", frames=frames))
    project.add_box("20,10,12,8")
    assert len(project.try_frames(0, filler, {}, silent, OPTIONS).frames) == frames
    assert project.fill(filler, {}, silent, OPTIONS).report.frames == frames


def test_large_upright_clips_are_shown_smaller_and_painted_at_their_own_size(tmp_path):
    project = Project(tmp_path / "project", Limits())
    clip = media.write_video(tmp_path / "a.mp4", frames=2, size=(1280, 720), rotation=90)
    load(project, clip)
    assert project.frames.size == (540, 960)
    painted = np.zeros((960, 540), np.uint8)
    painted[480:960, :270] = 1
    project.add_painted(painted, 0, how="always", box=True, when="")
    assert project.parts[0].value == "0,640,360,640"


def test_another_clip_replaces_the_first_and_its_hole(project, tmp_path):
    project.add_box("1,1,8,8")
    load(project, media.write_video(tmp_path / "b.mp4", frames=5))
    assert project.parts == []
    assert files(project) == ["b.mp4", "frames"]


def test_paint_is_a_hole_at_the_size_of_the_clip(project):
    # The page shows large clips smaller; here the paint comes at half the size.
    half = paint(10, 5, 6, 4, size=(32, 24))
    part = project.add_painted(half, 3, how="always", box=False, when="")
    assert part.label == "1: painted on frame 3, whole video"
    for index in (0, 29):
        hole = project.hole_at(index)
        union = hole | (paint() > 0)
        assert (hole & (paint() > 0)).sum() / union.sum() > 0.8
    assert (project.shown(0)[14, 26] != project.frames.at(0)[14, 26]).any()


def test_paint_for_a_stretch_of_frames(project):
    project.add_painted(paint(), 3, how="span", box=False, when="5-7")
    assert [i for i in range(FRAMES) if project.hole_at(i).any()] == [5, 6, 7]


def test_boxes_around_patches_of_paint(project):
    painted = paint(4, 4, 5, 6) | paint(30, 20, 8, 4)
    painted[5, 6] = 0
    project.add_painted(painted, 0, how="span", box=True, when="0.2s-0.4s")
    texts = [part.value for part in project.parts]
    assert texts == ["4,4,5,6@0.2s-0.4s", "30,20,8,4@0.2s-0.4s"]
    assert parse_box(texts[0]).width == 5


def test_the_same_paint_is_added_once(project):
    for _ in range(2):
        project.add_painted(paint(), 3, how="always", box=False, when="")
    assert len(project.parts) == 1
    project.add_painted(paint(), 4, how="always", box=False, when="")
    project.add_painted(paint(2, 2, 9, 9), 4, how="always", box=False, when="")
    assert len(project.parts) == 3


def test_nothing_painted_adds_nothing(project):
    assert project.add_painted(paint() * 0, 0, how="always", box=False, when="") is None
    assert project.parts == []


@pytest.mark.parametrize("when", ["30-40", "1.2s-2s", "40-"])
def test_a_hole_past_the_end_is_a_sentence(project, when):
    message = r"past the end: the video has 30 frames \(0 to 29\), 1.16 s"
    with pytest.raises(InputError, match=message):
        project.add_painted(paint(), 0, how="span", box=False, when=when)
    with pytest.raises(InputError, match=message):
        project.add_box(f"1,1,8,8@{when}")
    assert project.parts == []


def test_a_wrong_box_is_a_sentence(project):
    with pytest.raises(InputError, match="not wholly inside the frame, which is 64 x 48"):
        project.add_box("60,1,8,8")
    with pytest.raises(InputError, match="expected x,y,w,h"):
        project.add_box("a box")


def test_files_give_the_hole(project, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("x,y,width,height,start,end\n2,2,10,10,0,4\n")
    add_file(project, boxes)
    lines = tmp_path / "lines.srt"
    lines.write_text("1\n00:00:00,400 --> 00:00:00,800\nHello\n\n")
    add_file(project, lines)
    masks = [paint(40, 4, 8, 8) * (index == 20) for index in range(FRAMES)]
    pictures = [np.repeat(mask[..., None], 3, axis=2) for mask in masks]
    video = media.write_video(tmp_path / "mask.mkv", frames=FRAMES, pictures=pictures)
    add_file(project, video)
    still = media.write_image(tmp_path / "still.png", paint(0, 30, 4, 4))
    add_file(project, still)
    assert [part.kind for part in project.parts] == ["boxes", "subtitles", "mask", "mask"]
    areas = [int(project.hole_at(index).sum()) for index in (0, 10, 20, 29)]
    lowest = WIDTH * (HEIGHT // 5)
    assert areas == [100 + 16, lowest + 16 - 0, 64 + 16, 16]


@pytest.mark.parametrize("name", ["short.mkv", "small.png", "empty.csv", "text.png", "none.srt"])
def test_files_that_do_not_fit_are_a_sentence_and_leave_nothing(project, tmp_path, name):
    path = tmp_path / name
    if name == "short.mkv":
        media.write_video(path, frames=5)
    elif name == "small.png":
        media.write_image(path, paint(size=(60, 40)))
    else:
        path.write_text("")
    before = files(project)
    with pytest.raises(InputError):
        add_file(project, path)
    assert project.parts == []
    assert files(project) == before


def test_some_frames_are_tried_around_the_one_that_is_shown(project, filler):
    project.add_box("20,10,12,8")
    tried = project.try_frames(20, filler, {}, silent, OPTIONS)
    assert tried.frames == range(20 - TRIED_FRAMES // 2, 20 + TRIED_FRAMES // 2)
    inside = (slice(10, 18), slice(20, 32))
    before, after = tried.at(20)
    assert abs(before.astype(int) - media.scene(20, WIDTH, HEIGHT)).mean() < 6
    change = abs(after.astype(int) - before)
    assert change[inside].mean() > 1
    change[inside] = 0
    assert not change.any()
    assert np.array_equal(tried.at(29), tried.at(27))
    project.try_frames(5, filler, {}, silent, OPTIONS)
    assert not tried.path.exists()


def test_trying_where_there_is_no_hole_is_a_sentence(project, filler):
    project.add_box("20,10,12,8@0-3")
    with pytest.raises(InputError, match="There is no hole in frames 14 to 29: go to a frame"):
        project.try_frames(29, filler, {}, silent, OPTIONS)


def test_filling_without_a_hole_is_a_sentence(project, filler):
    with pytest.raises(InputError, match="There is no hole yet: paint over what should go"):
        project.fill(filler, {}, silent, OPTIONS)
    project.add_box("20,10,12,8")
    project.left_out = {project.parts[0].label}
    with pytest.raises(InputError, match="There is no hole yet"):
        project.fill(filler, {}, silent, OPTIONS)


@pytest.mark.parametrize("kind", ["boxes", "paint", "both"])
def test_a_fill_equals_the_command_lines(project, filler, inpainter, tmp_path, kind, monkeypatch):
    if kind != "paint":
        project.add_box("20,10,12,8@3-12")
    if kind != "boxes":
        project.add_painted(paint(40, 20, 10, 10), 0, how="always", box=False, when="")
    heard = []
    filled = project.fill(
        filler,
        {},
        lambda *told: heard.append(told),
        {
            **OPTIONS,
            "dilate": 2,
            "codec": "ffv1",
        },  # x264 beside another encoder does not always do the same
        suffix=".mkv",
        preview=True,
        compare=True,
        flags=["--dilate", "2", "--codec", "ffv1"],
    )
    assert filled.files[VIDEO].name == "my clip-filled.mkv"
    assert filled.first == (3 if kind == "boxes" else 0)
    if kind == "both":
        assert "Drawing the hole" in [phase for phase, *_ in heard]
    assert ("Filling", FRAMES, FRAMES) in heard
    names = {VIDEO, "Contact sheet", "Side by side", *(["Mask"] if kind != "boxes" else [])}
    assert set(filled.files) == names
    assert all(path.stat().st_size for path in filled.files.values())
    assert len(media.packets(filled.files[VIDEO], "audio")) > 0
    # The command that is shown does the same, run where the files are.
    command = shlex.split(filled.command)
    monkeypatch.chdir(tmp_path)
    for path in filled.files.values():
        if path != filled.files[VIDEO]:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("vinpaint.cli._inpainter", lambda _args: inpainter)
    assert main(command[1:]) == 0
    assert np.array_equal(frames_of(tmp_path / command[-1]), frames_of(filled.files[VIDEO]))


def test_a_second_fill_replaces_the_first(project, filler):
    project.add_box("20,10,12,8")
    first = project.fill(filler, {}, silent, OPTIONS)
    second = project.fill(filler, {}, silent, OPTIONS, suffix=".mkv")
    assert not first.files[VIDEO].exists()
    assert second.files[VIDEO].suffix == ".mkv"


def test_a_fill_that_is_cancelled_leaves_nothing(project, filler):
    project.add_box("20,10,12,8")
    before = files(project)

    def told(what, done, _total):
        if what == "Filling" and done > 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        project.fill(filler, {}, told, OPTIONS)
    assert files(project) == before


def test_a_full_disk_leaves_nothing(project, filler, monkeypatch):
    project.add_box("20,10,12,8")
    before = files(project)

    def full(*_given, **_named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vinpaint.video.writer.VideoWriter.write", full)
    with pytest.raises(OSError, match="No space left"):
        project.fill(filler, {}, silent, OPTIONS)
    assert files(project) == before
    assert project.filled is None


def test_boxes_are_filled_without_a_mask_file(project, filler, monkeypatch):
    monkeypatch.setattr("vinpaint.web.project.make_mask", None)
    project.add_box("20,10,12,8")
    assert "Mask" not in project.fill(filler, {}, silent, OPTIONS).files


def test_what_is_odd_about_a_hole_is_told(project, filler):
    project.add_box("20,10,12,8")
    assert project.fill(filler, {}, silent, OPTIONS).warnings == []
    project.add_box(f"0,0,{WIDTH},{HEIGHT}")
    filled = project.fill(filler, {}, silent, {**OPTIONS, "invert": True})
    (warning,) = filled.warnings
    assert "the mask is empty in every frame, so the output equals the input" in warning
    job = Job(lambda _told: filled, Jobs(limit=1))
    job.run()
    assert f"Note: {warning}." in ended(job, project)[0]
