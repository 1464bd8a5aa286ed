# SPDX-License-Identifier: Apache-2.0
"""Clips in a folder, the holes cut into them, and the fills that no network makes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from media import scene, write_folder, write_image, write_video

from vinpaint.errors import InputError
from vinpaint.evaluation import classical
from vinpaint.evaluation.data import Clip, find_clips, load_frames, load_objects
from vinpaint.evaluation.holes import HOLES, make_hole, read_hole, write_hole
from vinpaint.video.footage import VIDEO_SUFFIXES
from vinpaint.video.masks import dilated

SHAPE = (6, 60, 80)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One clip of every kind: a video, a folder, frames beside masks, a video beside masks."""
    data = tmp_path / "data"
    pictures = [scene(i, 80, 60) for i in range(6)]
    masks = np.zeros(SHAPE, np.uint8)
    masks[:, 20:40, 30:50] = 255
    for name in ("both", "mixed"):
        (data / name).mkdir(parents=True)
        write_folder(data / name / "masks", masks)
    write_folder(data / "both" / "frames", pictures)
    write_video(data / "mixed" / "video.mp4", frames=6, size=(80, 60))
    write_video(data / "film.mkv", frames=6, size=(80, 60))
    write_folder(data / "plain", pictures)
    (data / "notes.txt").write_text("no clip")
    (data / "empty").mkdir()
    return data


def test_clips_are_found_in_every_layout(data: Path, tmp_path: Path) -> None:
    clips = find_clips(data)
    assert [(c.name, c.objects is not None) for c in clips] == [
        ("both", True),
        ("film", False),
        ("mixed", True),
        ("plain", False),
    ]
    assert all(load_frames(clip, None, None).shape == (*SHAPE, 3) for clip in clips)
    for name, masked in (("both", True), ("plain", False), ("mixed", True)):
        (alone,) = find_clips(data / name)
        assert (alone.name, alone.objects is not None) == (name, masked)
    davis = tmp_path / "davis"
    (davis / "JPEGImages").mkdir(parents=True)
    shutil.copytree(data / "both" / "frames", davis / "JPEGImages" / "480p" / "bear")
    shutil.copytree(data / "both" / "masks", davis / "Annotations" / "480p" / "bear")
    (bear,) = find_clips(davis)
    assert bear.name == "bear"
    assert load_objects(bear, (80, 60), 6).sum() == 6 * 20 * 20
    write_video(data / "plain.mp4", frames=2)
    with pytest.raises(InputError, match="two clips named plain"):
        find_clips(data)


def test_every_video_that_is_trained_on_is_evaluated(tmp_path: Path) -> None:
    for suffix in VIDEO_SUFFIXES:
        (tmp_path / f"clip{suffix[1:]}{suffix.upper()}").touch()
    found = {clip.frames.suffix.lower() for clip in find_clips(tmp_path)}
    assert found == set(VIDEO_SUFFIXES)


def test_frames_are_brought_to_a_size_by_the_area_filter(data: Path) -> None:
    (clip,) = find_clips(data / "plain")
    small = load_frames(clip, (40, 30), 4)
    blocks = np.stack([scene(i, 80, 60) for i in range(4)]).reshape(4, 30, 2, 40, 2, 3)
    assert np.abs(small - blocks.mean((2, 4))).max() <= 0.5
    (both,) = find_clips(data / "both")
    assert load_objects(both, (40, 30), 4).sum() == 4 * 10 * 10


def test_an_object_is_seen_in_a_palette_of_dark_colours(data: Path) -> None:
    (clip,) = find_clips(data / "both")
    for path in clip.objects.iterdir():
        picture = np.full((60, 80, 3), 4, np.uint8)  # what JPEG makes of black
        picture[:10, :10] = (0, 64, 0)
        write_image(path, picture)
    assert load_objects(clip, (80, 60), 6).sum() == 6 * 100


@pytest.mark.parametrize("kind", HOLES)
def test_holes_come_from_the_seed_and_the_clips_name(kind: str) -> None:
    clips = [Clip(name, Path(name), None) for name in "ab"]

    def hole(name: int = 0, seed: int = 0) -> np.ndarray:
        return make_hole(kind, clips[name], clips, SHAPE, ratio=0.1, seed=seed)

    first = hole()
    assert first.shape == SHAPE
    assert first.any()
    assert not first.all(axis=(1, 2)).any()
    assert np.array_equal(first, hole())
    assert not np.array_equal(first, hole(seed=1))
    assert not np.array_equal(first, hole(name=1))


@pytest.mark.parametrize("ratio", [0.05, 0.0625, 0.3])
def test_holes_cover_the_stated_share(ratio: float) -> None:
    clip = Clip("a", Path("a"), None)
    for kind in ("box", "free-form"):
        hole = make_hole(kind, clip, [clip], (4, 240, 400), ratio=ratio)
        assert hole.mean() == pytest.approx(ratio, rel=0.1)
    box = make_hole("box", clip, [clip], (4, 120, 200), ratio=0.25)[0]
    assert (box.any(1).sum(), box.any(0).sum()) == (60, 100)


def test_an_object_hole_is_another_clips_grown_object(data: Path) -> None:
    clips = [clip for clip in find_clips(data) if clip.name in ("both", "film")]
    film = clips[1]
    hole = make_hole("object", film, clips, (14, 60, 80))  # longer than the object's clip
    objects = np.zeros((60, 80), np.uint8)
    objects[20:40, 30:50] = 255
    assert (hole == (dilated(objects, 4) > 0)).all()
    own = make_hole("object", clips[0], clips, SHAPE)  # no other clip has an object: it is drawn
    assert not np.array_equal(own[0], hole[0])
    assert len(np.unique(own.reshape(6, -1), axis=0)) > 1  # and moves


def test_masks_are_written_and_read_back(tmp_path: Path) -> None:
    hole = np.random.default_rng(0).random(SHAPE) < 0.3
    write_hole(tmp_path / "m", np.ones((9, 4, 4), bool))
    write_hole(tmp_path / "m", hole)
    assert np.array_equal(read_hole(tmp_path / "m", SHAPE), hole)
    for value, colour in ((False, "black"), (True, "white")):
        write_hole(tmp_path / "m", np.full(SHAPE, value))
        with pytest.raises(InputError, match=f"are all {colour}"):
            read_hole(tmp_path / "m", SHAPE)


def _ramp() -> np.ndarray:
    """A static picture whose brightness rises evenly to the right and downwards: harmonic."""
    y, x = np.mgrid[:60, :80]
    return np.repeat(np.stack([2 * x, 3 * y, x + y], -1)[None], 6, 0).astype(np.uint8)


def test_the_harmonic_fill_continues_a_ramp() -> None:
    hole = np.zeros(SHAPE, bool)
    hole[:, 20:45, 30:60] = True
    hole[2] = False
    blank = np.where(hole[..., None], np.uint8(0), _ramp())
    error = np.abs(classical.harmonic(blank, hole).astype(int) - _ramp())
    assert error.max() <= 2
    assert not error[~hole].any()


def test_the_temporal_median_finds_what_other_frames_show() -> None:
    hole = np.zeros(SHAPE, bool)
    for i in range(6):
        hole[i, 20:40, 5 + 10 * i : 20 + 10 * i] = True
    hole[:, 50:55, 70:75] = True  # never seen: filled smoothly
    filled = classical.temporal_median(np.where(hole[..., None], np.uint8(0), _ramp()), hole)
    always = hole.all(axis=0)
    assert np.array_equal(filled[:, ~always], _ramp()[:, ~always])
    assert np.abs(filled[:, always].astype(int) - _ramp()[:, always]).max() <= 2


def test_mean_and_opencv_fill_a_plain_colour() -> None:
    colour = np.uint8([200, 120, 40])
    hole = np.zeros(SHAPE, bool)
    hole[:, 10:20, 10:30] = True
    blank = np.where(hole[..., None], np.uint8(0), np.broadcast_to(colour, (*SHAPE, 3)))
    for fill in (classical.mean, classical.telea, classical.navier_stokes):
        assert np.abs(fill(blank, hole).astype(int) - colour).max() <= 3  # OpenCV rounds down
