# SPDX-License-Identifier: Apache-2.0
"""A mask from all that says where the hole is, as a video or a picture."""

from __future__ import annotations

import media
import numpy as np
import pytest
from PIL import Image

from vinpaint.errors import InputError
from vinpaint.masking import MaskSources, make_mask
from vinpaint.video.reader import open_clip

WIDTH, HEIGHT, FRAMES = 64, 48, 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return media.write_video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=FRAMES)


def white(x, y, width, height, size=(WIDTH, HEIGHT)):
    mask = np.zeros(size[::-1], np.uint8)
    mask[y : y + height, x : x + width] = 255
    return mask


def masks_of(path):
    return np.stack([frame.rgb[..., 0] for frame in open_clip(path).frames()])


def test_everything_together_bit_for_bit(clip, tmp_path):
    image = media.write_image(tmp_path / "p@int.png", white(40, 30, 6, 6))
    (tmp_path / "boxes.csv").write_text("10,10,4,4,5,6\n")
    (tmp_path / "lines.srt").write_text("1\n00:00:00,400 --> 00:00:00,480\nHi\n\n")
    given = media.write_image(tmp_path / "given.png", white(0, 0, 3, 3))
    sources = MaskSources(
        boxes=["20,20,5,5@0-1"],
        boxes_file=tmp_path / "boxes.csv",
        subtitles=tmp_path / "lines.srt",
        subtitles_area="0,40,64,8",
        mask=[given],
        paint=[f"{image}@18-"],
    )
    heard = []
    report = make_mask(
        clip,
        tmp_path / "mask.mkv",
        sources,
        preview=tmp_path / "look.png",
        progress=lambda *told: heard.append(told),
    )
    expected = np.stack([white(0, 0, 3, 3)] * FRAMES)
    expected[:2] |= white(20, 20, 5, 5)
    expected[5:7] |= white(10, 10, 4, 4)
    expected[10:12] |= white(0, 40, 64, 8)
    expected[18:] |= white(40, 30, 6, 6)
    assert np.array_equal(masks_of(tmp_path / "mask.mkv"), expected)
    assert (report.frames, report.hole_frames, report.lost_frames) == (FRAMES, FRAMES, 0)
    assert heard == [("mask", n, FRAMES) for n in range(1, FRAMES + 1)]
    assert media.shown_times(tmp_path / "mask.mkv")[:3] == media.shown_times(clip)[:3]
    with Image.open(tmp_path / "look.png") as sheet:
        assert sheet.width > 400


def test_a_mask_that_stays_is_a_picture(clip, tmp_path):
    make_mask(clip, tmp_path / "mask.png", MaskSources(boxes=["20,20,5,5"]))
    with Image.open(tmp_path / "mask.png") as mask:
        assert np.array_equal(np.asarray(mask), white(20, 20, 5, 5))
    with pytest.raises(InputError, match=r"the mask changes at frame 3; expected a \.mkv file"):
        make_mask(clip, tmp_path / "b.png", MaskSources(boxes=["20,20,5,5@3-"]))
    assert not (tmp_path / "b.png").exists()


def test_masks_over_masks(clip, tmp_path):
    """What was made can be taken again, with more of it."""
    make_mask(clip, tmp_path / "a.mkv", MaskSources(boxes=["20,20,5,5@3-6"]))
    more = MaskSources(mask=[tmp_path / "a.mkv"], boxes=["0,0,4,4"])
    make_mask(clip, tmp_path / "b.mkv", more)
    first, both = masks_of(tmp_path / "a.mkv"), masks_of(tmp_path / "b.mkv")
    assert np.array_equal(both, first | white(0, 0, 4, 4))


def test_odd_sizes_and_folders_of_frames(tmp_path):
    folder = media.write_folder(tmp_path / "in", [media.scene(i, 33, 27) for i in range(4)])
    make_mask(folder, tmp_path / "mask.mkv", MaskSources(boxes=["30,20,3,7"]))
    assert np.array_equal(masks_of(tmp_path / "mask.mkv")[3], white(30, 20, 3, 7, (33, 27)))


def moving(index, size=(160, 120)):
    """Texture under a dark disc that moves 3 pixels a frame."""
    rng = np.random.default_rng(1)
    picture = rng.integers(90, 250, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    picture = np.repeat(np.repeat(picture, 4, axis=0), 4, axis=1)
    picture[disc(index, size) > 0] = (150, 20, 20)
    return picture


def disc(index, size=(160, 120)):
    y, x = np.ogrid[: size[1], : size[0]]
    return (((x - 40 - 3 * index) ** 2 + (y - 60) ** 2) < 18**2).astype(np.uint8) * 255


def test_an_object_is_followed_from_a_painted_frame(tmp_path):
    clip = media.write_video(
        tmp_path / "a.mp4", size=(160, 120), frames=16, pictures=[moving(i) for i in range(16)]
    )
    painted = media.write_image(tmp_path / "disc.png", disc(6))
    heard = set()
    report = make_mask(
        clip,
        tmp_path / "mask.mkv",
        MaskSources(follow=[f"{painted}@6"]),
        progress=lambda what, _done, _total: heard.add(what),
    )
    found = masks_of(tmp_path / "mask.mkv") > 0
    truth = np.stack([disc(i) for i in range(16)]) > 0
    overlap = (found & truth).sum(axis=(1, 2)) / (found | truth).sum(axis=(1, 2))
    assert overlap.min() > 0.6
    assert overlap[6] > 0.95
    assert report.lost_frames == 0
    assert heard == {"frames", "follow", "mask"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "disc.png", "mask.mkv"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "expected something that says where the hole is, got nothing"),
        ({"boxes": ["60,1,8,8"]}, "--box: 60,1,8,8 is not wholly inside the frame"),
        ({"boxes": ["1,1,8,8@20-"]}, "--box: 1,1,8,8@20- covers no frame; the clip has 20"),
        ({"boxes_file": "late.csv"}, "--boxes: 1,1,8,8@90- covers no frame"),
        ({"boxes_file": "large.csv"}, "--boxes: 1,1,80,8 is not wholly inside"),
        ({"subtitles_area": "0,0,8,8", "boxes": ["1,1,8,8"]}, "expected --subtitles beside it"),
        ({"subtitles": "lines.srt", "subtitles_area": "0,0,80,8"}, "--subtitles-area: "),
        ({"paint": ["white.png@30-40"]}, "--paint: white.png@30-40 covers no frame"),
        ({"paint": ["white.png@5-2"]}, "--paint: expected START before END"),
        ({"paint": ["black.png"]}, "--paint: expected white in the hole, found none"),
        ({"paint": ["small.png"]}, "--paint: small.png is 8 x 8, but the clip is shown at 64 x 48"),
        ({"paint": ["missing.png"]}, "missing.png"),
        ({"mask": ["missing.png"]}, "--mask: no such file or folder"),
        ({"mask": ["short.mkv"]}, "--mask: .*short.mkv ends before frame 5"),
        ({"mask": ["long.mkv"]}, "--mask: the mask has 25 frames, but the clip has 20"),
        ({"follow": ["white.png@20"]}, "--follow: white.png@20 is past the end; the clip has 20"),
        ({"follow": ["white.png@soon"]}, "--follow: expected a frame number"),
        ({"follow": ["black.png"]}, "--follow|painted|expected"),
        ({"logo": True}, "--logo: found none: nothing keeps its place"),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_written(
    clip, tmp_path, monkeypatch, sources, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "late.csv").write_text("1,1,8,8,90,\n")
    (tmp_path / "large.csv").write_text("1,1,80,8\n")
    (tmp_path / "lines.srt").write_text("1\n00:00:00,400 --> 00:00:00,480\nHi\n\n")
    media.write_image(tmp_path / "white.png", white(10, 10, 10, 10))
    media.write_image(tmp_path / "black.png", white(0, 0, 0, 0))
    media.write_image(tmp_path / "small.png", white(0, 0, 4, 4, (8, 8)))
    for name, frames in (("short.mkv", 5), ("long.mkv", 25)):
        media.write_video(tmp_path / name, frames=frames)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        make_mask(clip, "mask.mkv", MaskSources(**sources), preview="look.png")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("mask.mp4", "cannot hold a lossless mask; expected a .mkv file, or a .png"),
        ("there.mkv", "there.mkv exists; pass --overwrite"),
        ("none/mask.mkv", "the folder none does not exist"),
        ("boxes.csv.mkv/../boxes.csv", "lossless mask"),
    ],
)
def test_outputs_that_cannot_be(clip, tmp_path, monkeypatch, output, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.mkv").touch()
    with pytest.raises(InputError, match=message):
        make_mask(clip, output, MaskSources(boxes=["1,1,8,8"]))
    with pytest.raises(InputError, match=r"--preview: look\.mkv would be written over --output"):
        make_mask(clip, "look.mkv", MaskSources(boxes=["1,1,8,8"]), preview="look.mkv")
    make_mask(clip, "there.mkv", MaskSources(boxes=["1,1,8,8"]), overwrite=True)


def test_what_progress_raises_ends_the_work_and_leaves_nothing(clip, tmp_path):
    def stop(_what, done, _total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_mask(clip, tmp_path / "mask.mkv", MaskSources(boxes=["1,1,8,8"]), progress=stop)
    assert list(tmp_path.iterdir()) == []
