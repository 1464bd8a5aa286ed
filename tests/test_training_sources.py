# SPDX-License-Identifier: Apache-2.0
"""Footage of every kind, decoded once: layouts, crops, changes, damage, interruptions."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import crashing_decoder
import numpy as np
import pytest
from media import scene, truncate, write_folder, write_image, write_video

from vinpaint.errors import InputError, InputWarning
from vinpaint.training import cache
from vinpaint.training.camera import CameraConfig, Move, film, random_move, render
from vinpaint.training.data import ClipDataset, DataConfig, prepare_data
from vinpaint.training.sources import find_sources, read_boxes


def _clip(path: Path, *, seed: int = 0, count: int = 6, size=(48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_folder(path, [scene(i, *size, seed=seed) for i in range(count)])


def _config(tmp_path: Path, *folders: Path, **options) -> DataConfig:
    return DataConfig(
        **{
            "cache": str(tmp_path / "cache"),
            "folders": tuple(map(str, folders)),
            "short_side": 32,
            "decoders": 1,
            **options,
        }
    )


def _start(path: Path) -> str:
    """Clip and first frame of a file in the cache, without its fingerprint."""
    name, _, start = path.name.split("@")
    return f"{name}@{start}"


def _names(*folders: Path) -> list[str]:
    return [source.name for source in find_sources([*map(str, folders)], [])[0]]


def test_videos_and_frames_are_found_at_any_depth(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    _clip(videos / "a" / "frames")
    _clip(videos / ".hidden" / "frames")
    _clip(videos / "single", count=1)  # a picture is no clip
    write_video(videos / "a" / "one.mp4", frames=6)
    write_video(videos / "two.MKV", frames=6)
    (videos / "notes.txt").write_text("no footage")
    assert _names(videos) == ["a_frames", "a_one.mp4", "two.MKV"]
    assert _names(videos / "a" / "frames") == ["frames"]
    prepared = prepare_data(_config(tmp_path, videos))
    assert (prepared.sources, prepared.shots, prepared.decoded, prepared.skipped) == (3, 3, 3, {})
    assert prepared.frames == 18


def test_the_layouts_of_davis_and_youtube_vos(tmp_path: Path) -> None:
    davis, youtube = tmp_path / "DAVIS", tmp_path / "youtube"
    for kind in ("JPEGImages", "Annotations"):
        _clip(davis / kind / "480p" / "bear")
        _clip(davis / kind / "Full-Resolution" / "bear")
        for part in ("train", "valid"):
            _clip(youtube / part / kind / "00f88c4f0a")
    assert _names(davis) == ["JPEGImages_480p_bear"]
    assert _names(youtube) == ["train_JPEGImages_00f88c4f0a"]
    assert _names(youtube / "train") == ["JPEGImages_00f88c4f0a"]


def test_masks_beside_their_clip_are_no_footage(tmp_path: Path) -> None:
    for name in ("boat/frames", "boat/masks", "car/masks", "films/masks"):
        _clip(tmp_path / name)
    write_video(tmp_path / "car" / "car.mp4", frames=6)
    assert _names(tmp_path) == ["boat_frames", "car_car.mp4", "films_masks"]


def test_clips_of_one_name_stay_apart(tmp_path: Path) -> None:
    for number, folder in enumerate(("a", "b")):
        _clip(tmp_path / folder / "clip", seed=number)
    prepared = prepare_data(_config(tmp_path, tmp_path / "a", tmp_path / "b"))
    first, second = (np.load(path) for path in sorted(prepared.folder.glob("*.npy")))
    assert prepared.sources == 2
    assert not np.array_equal(first, second)


def test_shots_end_at_cuts_and_keep_their_pixels(tmp_path: Path) -> None:
    pictures = [scene(i, 48, 32, seed=3 * (i // 20)) for i in range(40)]
    (tmp_path / "footage").mkdir()
    write_folder(tmp_path / "footage" / "cut", pictures)
    prepared = prepare_data(_config(tmp_path, tmp_path / "footage"))
    paths = sorted(prepared.folder.glob("*.npy"))
    assert [*map(_start, paths)] == ["cut@000000.npy", "cut@000020.npy"]
    assert np.array_equal(np.concatenate([np.load(path) for path in paths]), pictures)


def test_long_shots_are_stored_in_parts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cache, "LONGEST_SHOT", 4)
    _clip(tmp_path / "footage" / "long", count=10)
    prepared = prepare_data(_config(tmp_path, tmp_path / "footage"))
    lengths = [len(np.load(path)) for path in sorted(prepared.folder.glob("*.npy"))]
    assert lengths == [4, 4, 2]


def test_the_short_side_is_reached_from_above_and_below(tmp_path: Path) -> None:
    _clip(tmp_path / "footage" / "clip")
    for short_side, expected in ((16, (6, 16, 24, 3)), (40, (6, 40, 60, 3))):
        config = _config(tmp_path, tmp_path / "footage", short_side=short_side)
        (path,) = prepare_data(config).folder.glob("*.npy")
        assert np.load(path).shape == expected


def test_the_central_square_and_the_square_around_a_box(tmp_path: Path) -> None:
    _clip(tmp_path / "footage" / "face")
    whole = np.stack([scene(i, 48, 32) for i in range(6)])
    config = _config(tmp_path, tmp_path / "footage", crop="center-square")
    (path,) = prepare_data(config).folder.glob("*.npy")
    assert np.array_equal(np.load(path), whole[:, :, 8:40])
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("clip,x,y,width,height\nface,34,4,4,8\nface,40,2,4,4\n")
    assert read_boxes(boxes) == {"face": (34, 2, 10, 10)}
    config = _config(
        tmp_path,
        tmp_path / "footage",
        crop="boxes",
        boxes=str(boxes),
        box_margin=0.6,
        short_side=16,
    )
    folder = prepare_data(config).folder
    (path,) = folder.glob("*.npy")
    assert np.array_equal(np.load(path), whole[:, :16, 31:47])
    boxes.write_text("clip,x,y,width,height\nface,60,2,16,16\n")  # beyond the picture: moved inside
    assert prepare_data(replace(config, box_margin=0)).decoded == 1
    (path,) = {*folder.glob("*.npy")} - {path}
    assert np.array_equal(np.load(path), whole[:, 2:18, 32:])


def test_boxes_that_are_missing_or_wrong_are_named(tmp_path: Path) -> None:
    _clip(tmp_path / "footage" / "face")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("clip,x,y,width,height\nother,1,2,3,4\n")
    config = _config(tmp_path, tmp_path / "footage", crop="boxes", boxes=str(boxes))
    with pytest.raises(InputError, match="boxes: no box for face"):
        prepare_data(config)
    boxes.write_text("clip,x,y\nface,1,2\n")
    with pytest.raises(InputError, match=r"line 2 of .* is no box"):
        prepare_data(config)
    with pytest.raises(InputError, match=r"missing\.csv cannot be read"):
        prepare_data(replace(config, boxes=str(tmp_path / "missing.csv")))
    with pytest.raises(InputError, match="expected a CSV file together with crop = 'boxes'"):
        replace(config, boxes=None)


def test_what_has_not_changed_is_not_decoded_again(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    clip = _clip(footage / "clip")
    other = _clip(footage / "other", seed=1)
    seen = []
    config = _config(tmp_path, footage)
    assert prepare_data(config, progress=lambda *step: seen.append(step)).decoded == 2
    assert seen == [(1, 2), (2, 2)]
    assert prepare_data(config).decoded == 0
    write_image(clip / "frame3.png", np.zeros((32, 48, 3), np.uint8))
    folder = config.decoding().folder(config.cache)
    before = {*folder.glob("*.npy")}
    assert prepare_data(config).decoded == 1
    (path,) = {*folder.glob("*.npy")} - before
    assert _start(path) == "clip@000000.npy"
    assert np.load(path)[2].max() == 0
    stat = (other / "frame1.png").stat()
    os.utime(other / "frame1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert prepare_data(config).decoded == 1
    small = prepare_data(replace(config, short_side=16))
    assert small.decoded == 2
    assert prepare_data(config).decoded == 0  # the larger shots are still there
    (other / "frame6.png").unlink()
    assert prepare_data(config).frames == 11


def test_runs_that_share_a_cache_get_their_own_footage(tmp_path: Path) -> None:
    configs = []
    for seed, name in enumerate(("one", "two")):
        _clip(tmp_path / name / "x", seed=seed)
        configs.append(_config(tmp_path, tmp_path / name, validation_share=0))
    assert [prepare_data(config).decoded for config in (*configs, *configs)] == [1, 1, 0, 0]
    for seed, config in enumerate(configs):
        (shot,) = ClipDataset(config, frames=4, size=16, stop=1).shots
        assert shot.source == "x"
        assert np.array_equal(np.load(shot.path)[0], scene(0, 48, 32, seed=seed))


def test_shots_of_a_cache_can_be_trained_on_without_their_footage(tmp_path: Path) -> None:
    _clip(tmp_path / "footage" / "clip")
    prepared = prepare_data(_config(tmp_path, tmp_path / "footage"))
    loose = DataConfig(cache=str(prepared.folder))
    (shot,) = ClipDataset(loose, frames=4, size=16, stop=1).shots
    assert shot.source == "clip"


def test_a_stopped_run_goes_on_and_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    footage = tmp_path / "footage"
    _clip(footage / "a")
    footage.joinpath("b").mkdir()
    for i in range(40):
        write_image(footage / "b" / f"{i}.png", scene(i, 48, 32, seed=3 * (i // 20)))
    config = _config(tmp_path, footage)
    save, saved = np.save, []

    def killed(file, shot) -> None:
        saved.append(file.name)
        if len(saved) == 3:
            file.write(b"half a shot")
            raise KeyboardInterrupt
        save(file, shot)

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_data(config)
    folder = config.decoding().folder(config.cache)
    a, b = (config.decoding().entry(source) for source in find_sources([str(footage)], [])[0])
    assert {path.name for path in folder.iterdir()} == {
        ".lock", f"{a}.json", f"{a}@000000.npy", f"{b}@000000.npy", f"{b}@000020.partial",
    }  # fmt: skip
    (folder / f"{b}@000007.npy").write_bytes(b"of cuts that are no more")
    prepared = prepare_data(config)
    assert (prepared.decoded, prepared.shots, prepared.frames) == (1, 3, 46)
    assert {path.name for path in folder.iterdir()} == {
        ".lock", f"{a}.json", f"{a}@000000.npy",
        f"{b}.json", f"{b}@000000.npy", f"{b}@000020.npy",
    }  # fmt: skip


def test_damaged_files_are_skipped_and_named_once(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    good = write_video(footage / "good.mp4", frames=20)
    cut = truncate(good, 0.6, "cut.mp4")
    (footage / "bad.mkv").write_bytes(b"no video")
    (footage / "V000.seq").write_bytes(b"Norpix seq")
    broken = _clip(footage / "frames")
    truncate(broken / "frame4.png", 0.5, "frame4.png")
    config = _config(tmp_path, footage)
    with pytest.warns(InputWarning) as warned:
        prepared = prepare_data(config)
    assert len(warned) == 1
    text = str(warned[0].message)
    assert text.startswith("4 of 5 clips cannot be used: ")
    for path in (cut, footage / "bad.mkv", footage / "V000.seq", broken):
        assert path in prepared.skipped
        assert text.count(str(path)) == 1
    assert "--allow-truncated" not in text  # no option of training's
    assert "ffmpeg" in prepared.skipped[footage / "V000.seq"]
    assert (prepared.sources, prepared.frames) == (1, 20)
    good.unlink()
    with pytest.raises(InputError, match="4 of 4 clips cannot be used"):
        prepare_data(config)


def test_a_damaged_file_is_tried_again_when_it_changes(tmp_path: Path, monkeypatch) -> None:
    footage = tmp_path / "footage"
    _clip(footage / "good")
    bad = footage / "bad.mp4"
    bad.write_bytes(b"no video")
    config, tried = _config(tmp_path, footage), []
    decode = cache.decode
    monkeypatch.setattr(
        cache, "decode", lambda *args: (tried.append(args[1].name), decode(*args))[1]
    )
    reasons = []
    for _ in range(2):
        with pytest.warns(InputWarning, match=r"1 of 2 clips cannot be used: .*bad\.mp4"):
            reasons.append(prepare_data(config).skipped[bad])
    assert tried == ["bad.mp4", "good"]
    assert reasons[1].startswith(reasons[0])
    (entry,) = config.decoding().folder(config.cache).glob("bad.mp4@*.json")
    assert f"delete {entry} to try again" in reasons[1]
    entry.unlink()
    with pytest.warns(InputWarning):
        prepare_data(config)
    assert tried[2:] == ["bad.mp4"]
    write_video(bad, frames=6)
    assert prepare_data(config).skipped == {}
    assert tried[3:] == ["bad.mp4"]


def test_several_processes_decode_the_same(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    for seed in range(3):
        _clip(footage / f"clip{seed}", seed=seed)
    (footage / "bad.mp4").write_bytes(b"no video")
    config = _config(tmp_path, footage)
    with pytest.warns(InputWarning, match=r"bad\.mp4"):
        alone = prepare_data(config)
    with pytest.warns(InputWarning, match=r"bad\.mp4"):
        together = prepare_data(replace(config, cache=str(tmp_path / "other"), decoders=2))
    assert (together.decoded, together.shots) == (alone.decoded, alone.shots) == (3, 3)
    for path in alone.folder.glob("*.npy"):
        assert np.array_equal(np.load(path), np.load(together.folder / path.name))


def test_a_clip_that_crashes_its_decoder_is_skipped(tmp_path: Path, monkeypatch) -> None:
    for name in ("clip", "crash"):
        _clip(tmp_path / "footage" / name)
    monkeypatch.setattr(cache, "decode", crashing_decoder.decode)
    with pytest.warns(InputWarning, match=r"1 of 2 clips .*crash: its decoder crashed"):
        prepared = prepare_data(_config(tmp_path, tmp_path / "footage", decoders=2))
    assert (prepared.decoded, prepared.frames) == (1, 6)


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for options, message in (
        ({"folders": (str(tmp_path / "none"),)}, "folders: no such folder: .*none"),
        ({"folders": (str(empty),)}, "folders: .*empty holds no footage"),
        ({"photos": (str(tmp_path / "none"),)}, "photos: no such folder: .*none"),
        ({"photos": (str(empty),)}, "photos: .*empty holds no pictures"),
        ({"cache": str(tmp_path / "none")}, "cache: no such folder: .*none"),
    ):
        with pytest.raises(InputError, match=message):
            prepare_data(_config(tmp_path, **options))


def test_photographs_become_clips(tmp_path: Path) -> None:
    photos = tmp_path / "photos" / "holiday"
    photos.mkdir(parents=True)
    write_image(photos / "sea.png", scene(0, 160, 120))
    write_image(photos / "tower.jpg", scene(1, 120, 160))
    write_image(photos / "tiny.png", scene(0, 24, 20))
    (photos / "link.png").symlink_to(photos / "sea.png")
    config = _config(
        tmp_path, photos=(str(tmp_path / "photos"),), camera=CameraConfig(clips=2, frames=5)
    )
    with pytest.warns(InputWarning, match=r"tiny\.png has 24 x 20 pixels; expected at least 43"):
        prepared = prepare_data(config)
    shots = {_start(path): np.load(path) for path in prepared.folder.glob("*.npy")}
    shapes = {name: shot.shape for name, shot in shots.items()}
    assert shapes == {
        "holiday_sea.png@000000.npy": (5, 32, 43, 3),
        "holiday_sea.png@000005.npy": (5, 32, 43, 3),
        "holiday_tower.jpg@000000.npy": (5, 43, 32, 3),
        "holiday_tower.jpg@000005.npy": (5, 43, 32, 3),
    }
    first, second = (shots[f"holiday_sea.png@{start:06d}.npy"] for start in (0, 5))
    assert not np.array_equal(first, second)
    (photos / "tiny.png").unlink()
    assert prepare_data(config).decoded == 0
    assert prepare_data(replace(config, camera=CameraConfig(clips=1, frames=5))).shots == 2


PHOTO = scene(0, 300, 240)


def _still(frames: int, x: float = 150, y: float = 120, scale: float = 2) -> Move:
    centre = np.tile([float(x), float(y)], (frames, 1))
    return Move(centre, np.full(frames, float(scale)), np.zeros(frames))


def test_a_still_camera_shows_a_part_of_the_photograph() -> None:
    (frame,) = render(PHOTO, _still(1, scale=1), 40, 60)
    assert np.abs(frame.astype(int) - PHOTO[100:140, 120:180]).max() <= 2
    (frame,) = render(PHOTO, _still(1, scale=2), 40, 60)
    halved = PHOTO[80:160, 90:210].reshape(40, 2, 60, 2, 3).mean(axis=(1, 3))
    assert np.abs(frame - halved).max() <= 1


def test_a_known_pan_shifts_the_picture() -> None:
    move = _still(5)
    move.centre[:, 0] += 2 * np.arange(5)  # one pixel of the picture a frame
    move.centre[:, 1] -= np.arange(5)  # half a pixel
    frames = render(PHOTO, move, 40, 60).astype(int)
    assert np.abs(frames[0][:-1, 2:] - frames[2][1:, :-2]).max() <= 1
    between = (frames[0][:-1, 1:] + frames[0][1:, 1:]) / 2
    assert np.abs(between - frames[1][1:, :-1]).max() <= 4
    assert np.abs(frames[0] - frames[2]).max() > 20


def test_a_turned_and_zoomed_camera_sees_the_right_places() -> None:
    y, x = np.mgrid[:240, :300]
    places = np.stack([x * 0.8, y, 0 * x], axis=2).astype(np.uint8)
    move = Move(np.array([[150.0, 120.0]]), np.array([2.0]), np.array([np.pi / 2]))
    (frame,) = render(places, move, 40, 60)
    row, column = 10, 45
    across, down = 2 * (column + 0.5 - 30), 2 * (row + 0.5 - 20)
    expected = 0.8 * (150 - down - 0.5), 120 + across - 0.5
    assert frame[row, column, :2] == pytest.approx(expected, abs=1.5)


def test_near_parts_travel_further() -> None:
    ramp = np.repeat(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], 240, axis=0)
    photo = np.repeat(ramp, 3, axis=2)
    move = _still(2, x=140, scale=1)
    move.centre[1, 0] += 20
    depth = np.repeat(np.linspace(-0.5, 0.5, 30, dtype=np.float32)[:, None], 40, axis=1)
    first, second = render(photo, Move(move.centre, move.scale, move.angle, depth), 160, 60)
    travel = (second.astype(int) - first)[:, 30, 0] * 300 / 255
    assert travel[5] == pytest.approx(20 * (1 - 0.31), abs=2.5)
    assert travel[80] == pytest.approx(20, abs=2.5)
    assert travel[154] == pytest.approx(20 * (1 + 0.31), abs=2.5)


def test_moves_are_smooth_and_never_show_the_edge() -> None:
    config = CameraConfig(frames=12, view=(0.3, 1.0), rotation=30, zoom=2, parallax=0.5)
    photo = np.zeros((200, 260, 3), np.uint8)
    photo[[0, -1]] = photo[:, [0, -1]] = 255
    travelled = []
    for seed in range(20):
        move = random_move(np.random.default_rng(seed), photo.shape[:2], 40, 54, config)
        assert render(photo, move, 40, 54).max() < 128
        steps = np.hypot(*np.diff(move.centre, axis=0).T) / move.scale.mean()
        assert steps.max() <= 2 * config.pan * 40 / (config.frames - 1) + 1e-6
        travelled.append(steps.sum())
    assert np.median(travelled) > 3


def test_a_photograph_gives_the_same_clips_again(tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", PHOTO)
    config = CameraConfig(clips=1, frames=3)
    ((_, one),) = film(tmp_path / "photo.png", "name", 32, config)
    ((_, two),) = film(tmp_path / "photo.png", "name", 32, config)
    ((_, other),) = film(tmp_path / "photo.png", "another", 32, config)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_wrong_options_of_the_camera_are_named() -> None:
    for options, message in (
        ({"frames": 1}, "at least 2 frames, got clips=2, frames=1"),
        ({"view": (0.5, 1.5)}, r"camera.view: .* got \(0.5, 1.5\)"),
        ({"zoom": 0.5}, "zoom >= 1"),
    ):
        with pytest.raises(InputError, match=message):
            CameraConfig(**options)
