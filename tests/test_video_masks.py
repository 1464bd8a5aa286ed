# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fractions import Fraction

import media
import numpy as np
import pytest

from vinpaint.errors import InputError
from vinpaint.video.masks import dilated, feather_weights, open_mask, parse_box
from vinpaint.video.reader import open_clip

WIDTH, HEIGHT, FRAMES = 64, 48, 10


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory):
    return media.write_video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=FRAMES)


@pytest.fixture
def clip(clip_path):
    return open_clip(clip_path)


def white(x=20, y=10, width=12, height=8):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + height, x : x + width] = 255
    return mask


def holes(masks, clip):
    return [hole for _, hole in masks.pair(clip.thumbnails())]


def test_one_image_serves_all_frames_and_is_computed_once(tmp_path, clip):
    path = media.write_image(tmp_path / "mask.png", white())
    masks = open_mask(path, clip, dilate=0)
    got = holes(masks, clip)
    assert len(got) == FRAMES
    assert np.array_equal(got[0], white())
    assert all(hole is got[0] for hole in got)
    assert masks.brightest == 255


def test_white_begins_at_128_and_invert_comes_before_dilation(tmp_path, clip):
    gray = np.full((HEIGHT, WIDTH), 127, np.uint8)
    gray[0, 0] = 128
    path = media.write_image(tmp_path / "mask.png", gray)
    assert holes(open_mask(path, clip, dilate=0), clip)[0].nonzero() == ([0], [0])
    inverted = open_mask(path, clip, dilate=1, invert=True)
    assert holes(inverted, clip)[0].all()


def test_an_empty_mask_is_not_an_error_here_but_is_known(tmp_path, clip):
    path = media.write_image(tmp_path / "mask.png", white() // 255)
    masks = open_mask(path, clip)
    assert not any(hole.any() for hole in holes(masks, clip))
    assert masks.brightest == 1


@pytest.mark.parametrize("color", [0, 255])
def test_alpha_counts_only_when_it_is_all_there_is(tmp_path, clip, color):
    rgba = np.full((HEIGHT, WIDTH, 4), color, np.uint8)
    rgba[..., 3] = white()
    path = media.write_image(tmp_path / "mask.png", rgba)
    assert np.array_equal(holes(open_mask(path, clip, dilate=0), clip)[0], white())
    rgba[..., :3] = white(x=1)[..., None]
    media.write_image(path, rgba)
    assert np.array_equal(holes(open_mask(path, clip, dilate=0), clip)[0], white(x=1))


def test_a_folder_and_a_video_give_a_mask_a_frame(tmp_path, clip):
    pictures = [white(x=2 * i) for i in range(FRAMES)]
    folder = media.write_folder(tmp_path / "masks", pictures)
    for hole, picture in zip(holes(open_mask(folder, clip, dilate=0), clip), pictures, strict=True):
        assert np.array_equal(hole, picture)
    colored = [np.repeat(picture[..., None], 3, axis=2) for picture in pictures]
    video = media.write_video(tmp_path / "masks.mp4", frames=FRAMES, pictures=colored)
    for hole, picture in zip(holes(open_mask(video, clip, dilate=0), clip), pictures, strict=True):
        assert (hole != picture).mean() < 0.02


@pytest.mark.parametrize("count", [FRAMES - 2, FRAMES + 3])
@pytest.mark.parametrize("kind", ["folder", "video"])
def test_another_count_is_an_error_that_states_both(tmp_path, clip, kind, count):
    colored = [np.repeat(white()[..., None], 3, axis=2)] * count
    if kind == "folder":
        path = media.write_folder(tmp_path / "masks", colored)
    else:
        path = media.write_video(tmp_path / "masks.mp4", frames=count, pictures=colored)
    with pytest.raises(InputError, match=rf"the mask has {count} frames, but the clip has "):
        holes(open_mask(path, clip), clip)
    list(clip.thumbnails())
    with pytest.raises(InputError, match=rf"has {count} frames, but the clip has {FRAMES};"):
        holes(open_mask(path, clip), clip)


@pytest.mark.parametrize("kind", ["image", "folder", "video"])
def test_another_size_is_an_error_unless_resizing_is_allowed(tmp_path, clip, kind):
    small = np.zeros((HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    small[5:9, 10:16] = 255
    if kind == "image":
        path = media.write_image(tmp_path / "mask.png", small)
    elif kind == "folder":
        path = media.write_folder(tmp_path / "masks", [small] * FRAMES)
    else:
        path = media.write_video(
            tmp_path / "m.mp4", frames=FRAMES, size=(32, 24), pictures=[small] * FRAMES
        )
    with pytest.raises(InputError, match=r"is 32 x 24, .*shown at 64 x 48; .*--mask-resize"):
        open_mask(path, clip)
    hole = holes(open_mask(path, clip, dilate=0, resize=True), clip)[0]
    assert (hole != white()).mean() < 0.02


def test_masks_of_a_rotated_clip_are_as_it_is_shown(tmp_path):
    clip = open_clip(media.write_video(tmp_path / "a.mp4", frames=2, rotation=90))
    path = media.write_image(tmp_path / "mask.png", np.zeros((64, 48), np.uint8))
    assert holes(open_mask(path, clip), clip)[0].shape == (64, 48)


@pytest.mark.parametrize(
    ("text", "covered"),
    [
        ("1,2,3,4", range(10)),
        ("1,2,3,4@3-5", range(3, 6)),
        ("1,2,3,4@8-", range(8, 10)),
        ("1,2,3,4@-2", range(3)),
        ("1,2,3,4@0.08s-0.2s", range(2, 5)),
        ("1,2,3,4@0.2-", range(5, 10)),
        ("1,2,3,4@0:00.2-9s", range(5, 10)),
        ("1,2,3,4@4-0.24s", range(4, 6)),
        ("1, 2, 3, 4 @ 3 - 3", [3]),
    ],
)
def test_boxes_cover_their_time(clip, text, covered):
    shown = [hole.any() for hole in holes(open_mask([text], clip), clip)]
    assert shown == [i in covered for i in range(FRAMES)]


def test_seconds_follow_variable_time_stamps(tmp_path):
    path = media.write_video(tmp_path / "a.mp4", pts=[0, 50, 51, 90], time_base=Fraction(1, 100))
    clip = open_clip(path)
    shown = [hole.any() for hole in holes(open_mask(["0,0,8,8@0.5-0.9"], clip), clip)]
    assert shown == [False, True, True, False]


def test_several_boxes_are_united(clip):
    got = holes(open_mask(["0,0,10,10", "40,20,5,6@5-"], clip, dilate=0), clip)
    assert [np.count_nonzero(hole) for hole in got] == [100] * 5 + [130] * 5
    assert got[1] is got[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "--box: expected x,y,w,h"),
        ("a,b,c,d", "--box: expected x,y,w,h"),
        ("1,2,3,4@5", "--box: expected x,y,w,h"),
        ("1,2,0,4", "a width and a height of 1 or more"),
        ("1,2,3,4@x-9", "expected a frame number"),
        ("1,2,3,4@9-3", "START before END"),
        ("1,2,3,4@2s-2s", "START before END"),
        ("60,2,5,4", "not wholly inside the frame, which is 64 x 48"),
        ("-1,2,5,4", "not wholly inside the frame"),
        ("1,2,3,4@50-60", "covers no frame; the clip has 10 frames"),
    ],
)
def test_bad_boxes_are_refused(clip, text, message):
    with pytest.raises(InputError, match=message):
        holes(open_mask([text], clip), clip)


def test_times_are_read_in_every_form():
    assert parse_box("0,0,1,1@1:02:03.5-2:00:00").span.start == 3723.5
    assert parse_box("0,0,1,1@2s-3").span.start == 2.0
    assert isinstance(parse_box("0,0,1,1@2s-").span.start, float)
    assert isinstance(parse_box("0,0,1,1@2-").span.start, int)


def test_bad_masks_are_refused(tmp_path, clip):
    with pytest.raises(InputError, match=r"--mask: no such file or folder"):
        open_mask(tmp_path / "none.png", clip)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"--mask: the folder .* holds no pictures"):
        open_mask(tmp_path / "empty", clip)
    (tmp_path / "mask.png").write_text("hello")
    with pytest.raises(InputError, match=r"--mask: .*mask\.png cannot be read as a picture"):
        open_mask(tmp_path / "mask.png", clip)
    (tmp_path / "mask.mp4").write_text("hello")
    with pytest.raises(InputError, match=r"--mask: .*mask\.mp4 cannot be read as a video"):
        open_mask(tmp_path / "mask.mp4", clip)
    with pytest.raises(InputError, match="--dilate: expected 0 or more pixels, got -1"):
        open_mask(["0,0,1,1"], clip, dilate=-1)
    with pytest.raises(InputError, match="at least one box"):
        open_mask([], clip)


def test_dilation_grows_a_disc():
    hole = np.zeros((21, 21), np.uint8)
    hole[10, 10] = 255
    grown = dilated(hole, 4)
    y, x = np.nonzero(grown)
    assert (y.min(), y.max(), x.min(), x.max()) == (6, 14, 6, 14)
    assert np.hypot(y - 10, x - 10).max() < 4.5
    assert np.array_equal(grown, grown.T)
    assert dilated(hole, 0) is hole


def test_feathering_fades_inside_the_hole_only():
    hole = white()
    weights = feather_weights(hole, 3)
    assert (weights[hole == 0] == 0).all()
    assert (weights[hole > 0] > 0).all()
    assert weights[14, 20:26].tolist() == [0.25, 0.5, 0.75, 1, 1, 1]
    assert (feather_weights(np.full((4, 4), 255, np.uint8), 3) == 1).all()


def test_weights_are_the_hole_without_feathering(clip):
    masks = open_mask(["4,4,20,20"], clip)
    hole = holes(masks, clip)[0]
    assert masks.weights(hole) is hole
    soft = open_mask(["4,4,20,20"], clip, feather=2)
    hole = holes(soft, clip)[0]
    assert soft.weights(hole).dtype == np.float32
    assert soft.weights(hole) is soft.weights(hole)


def test_a_feather_wider_than_the_hole_still_hides_what_was_there():
    hole = np.zeros((60, 90), np.uint8)
    hole[10:30, 10:30] = 255
    hole[40:44, 50:80] = 255
    weights = feather_weights(hole, 40)
    assert weights[hole == 0].max() == 0
    assert weights[10:30, 10:30].max() == 1
    assert weights[40:44, 50:80].max() == 1
