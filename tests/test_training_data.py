# SPDX-License-Identifier: Apache-2.0
"""Samples: seeded, the same whatever makes them; without augmentation, the shots' own pixels."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from media import scene, write_folder, write_image
from torch.utils.data import DataLoader

from vinpaint.errors import InputError, InputWarning
from vinpaint.training import augment
from vinpaint.training.augment import AugmentConfig, random_window
from vinpaint.training.data import ClipDataset, DataConfig, is_validation, prepare_data
from vinpaint.training.holes import HoleConfig

SIZE = 16
FRAMES = 4

PLAIN = AugmentConfig(enabled=False)

ONLY = augment.PLAIN
"""Nothing, for one option at a time to be set."""


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Two shots of 12 frames, 20 x 24 pixels."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for seed in range(2):
        np.save(folder / f"{seed}.npy", [scene(i, 24, 20, seed=seed) for i in range(12)])
    return DataConfig(cache=str(folder), validation_share=0)


def _dataset(config: DataConfig, **options) -> ClipDataset:
    return ClipDataset(config, **{"frames": FRAMES, "size": SIZE, "stop": 8, **options})


def _window(shot, config: AugmentConfig, seed: int = 0, frames: int = FRAMES, size: int = SIZE):
    return random_window(np.random.default_rng(seed), shot, frames, size, config)


def _ramps(frames: int = 20, side: int = 40):
    """A shot whose red, green and blue say which frame, row and column a pixel was."""
    t, y, x = np.ogrid[:frames, :side, :side]
    return np.stack(np.broadcast_arrays(t, y, x), axis=-1).astype(np.uint8)


def test_a_sample_depends_on_seed_and_index_alone(config: DataConfig) -> None:
    frames, mask = _dataset(config, seed=1)[3]
    assert frames.shape == (3, FRAMES, SIZE, SIZE)
    assert frames.dtype == torch.uint8
    assert mask.shape == (1, FRAMES, SIZE, SIZE)
    assert mask.dtype == torch.bool
    assert frames.is_contiguous()
    assert mask.is_contiguous()
    again = _dataset(config, seed=1, start=2, stop=99)[3]
    assert torch.equal(frames, again[0])
    assert torch.equal(mask, again[1])
    assert not torch.equal(frames, _dataset(config, seed=2)[3][0])
    assert not torch.equal(frames, _dataset(config, seed=1)[4][0])


def _panned(folder: Path, side: int = 64, frames: int = 12) -> DataConfig:
    """One shot under a camera that pans, a box that moves the other way its hole."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (side // 4, side // 2, 3), dtype=np.uint8)
    world = cv2.resize(noise, (2 * side, side), interpolation=cv2.INTER_CUBIC)
    np.save(folder / "pan.npy", [world[:, 2 * t : 2 * t + side] for t in range(frames)])
    holes = HoleConfig(shares={"moving_box": 1.0}, side=(0.2, 0.3))
    return DataConfig(cache=str(folder), validation_share=0, augment=PLAIN, holes=holes, carried=1)


def test_what_other_frames_show_is_carried_into_the_hole(tmp_path: Path) -> None:
    data = _dataset(_panned(tmp_path / "shots"), size=64, frames=12)
    frames, mask, given, unknown = data[0]
    plain = _dataset(replace(data.config, carried=0), size=64, frames=12)[0]
    assert torch.equal(frames, plain[0])
    assert torch.equal(mask, plain[1])
    assert given.shape == frames.shape
    assert unknown.shape == mask.shape
    assert given.dtype == unknown.dtype == torch.uint8
    outside = ~mask.expand_as(frames)
    assert torch.equal(given[outside], frames[outside])
    assert (unknown[~mask] == 0).all()
    held = mask & (unknown < 255)
    assert held.sum() > 0.5 * mask.sum()
    error = (given.float() - frames.float()).abs().mean(0, keepdim=True)
    assert error[held].mean() < 8
    assert (given[(mask & (unknown == 255)).expand_as(given)] == 0).all()  # the truth is not there
    assert all(
        torch.equal(a, b) for a, b in zip(data[0], (frames, mask, given, unknown), strict=True)
    )


def test_a_share_of_the_samples_gets_what_was_carried(tmp_path: Path) -> None:
    config = replace(_panned(tmp_path / "shots"), carried=0.5)
    samples = [_dataset(config, size=64, frames=12, stop=12)[i] for i in range(12)]
    assert {len(sample) for sample in samples} == {4}
    empty = [torch.equal(unknown, 255 * mask) for _, mask, _, unknown in samples]
    assert 0 < sum(empty) < 12
    for (frames, _, given, _), nothing in zip(samples, empty, strict=True):
        assert torch.equal(given, frames) == nothing
    with pytest.raises(InputError, match=re.escape("carried: expected a share from 0 to 1, got 2")):
        replace(config, carried=2)


def test_samples_are_those_from_start_to_stop(config: DataConfig) -> None:
    data = _dataset(config, start=3, stop=7)
    assert len(data) == 4
    assert list(data.indices) == [3, 4, 5, 6]
    for index in (2, 7):
        with pytest.raises(IndexError, match=f"sample {index} is not in range"):
            data[index]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_any_number_of_workers_gives_the_same_samples(config: DataConfig) -> None:
    data = _dataset(config, stop=6)
    alone = [data[i] for i in data.indices]
    for workers in (0, 1, 2):
        loader = DataLoader(data, batch_size=2, sampler=data.indices, num_workers=workers)
        for number, (frames, mask) in enumerate(loader):
            for row in range(2):
                assert torch.equal(frames[row], alone[2 * number + row][0]), workers
                assert torch.equal(mask[row], alone[2 * number + row][1]), workers
        assert number == 2


def test_a_data_set_travels_to_a_worker_without_its_pixels(config: DataConfig) -> None:
    data = _dataset(config)
    packed = pickle.dumps(data)
    assert len(packed) < 5000
    assert torch.equal(pickle.loads(packed)[5][0], data[5][0])


def test_many_shots_keep_no_file_open(config: DataConfig) -> None:
    data = _dataset(config, stop=200)
    opened = Path(f"/proc/{os.getpid()}/fd")
    before = len(list(opened.iterdir()))
    samples = [data[i] for i in data.indices]
    assert len(list(opened.iterdir())) == before
    assert len(samples) == 200


def test_longer_shots_are_drawn_more_often_but_not_in_proportion(tmp_path: Path) -> None:
    for level, frames in ((10, 4), (200, 64)):
        np.save(tmp_path / f"{level}.npy", np.full((frames, SIZE, SIZE, 3), level, np.uint8))
    config = DataConfig(cache=str(tmp_path), validation_share=0, augment=PLAIN)
    data = _dataset(config, stop=300)
    longer = np.mean([bool(data[i][0].max() == 200) for i in data.indices])
    assert 0.72 < longer < 0.88  # 8 : 2


def test_without_augmentation_samples_are_the_shots_own_pixels(config: DataConfig) -> None:
    data = _dataset(replace(config, augment=PLAIN), stop=20)
    shots = [np.load(shot.path) for shot in data.shots]
    starts = set()
    for index in data.indices:
        frames = data[index][0].permute(1, 2, 3, 0).numpy()
        found = [
            (number, t, y, x)
            for number, shot in enumerate(shots)
            for t in range(12 - FRAMES + 1)
            for y in range(20 - SIZE + 1)
            for x in range(24 - SIZE + 1)
            if np.array_equal(shot[t : t + FRAMES, y : y + SIZE, x : x + SIZE], frames)
        ]
        assert len(found) == 1
        starts.add(found[0])
    assert len(starts) > 10


def test_speed_and_direction_of_a_window() -> None:
    shot = _ramps()
    both = replace(ONLY, speed=3, reverse=0.5)
    times = [_window(shot, both, seed)[0, :, 0, 0].astype(int) for seed in range(60)]
    assert {tuple(np.diff(t)) for t in times} == {(step,) * 3 for step in (-3, -2, -1, 1, 2, 3)}
    # Six frames are too few for four that are three apart, or two.
    times = [_window(shot[:6], both, seed)[0, :, 0, 0].astype(int) for seed in range(20)]
    assert {tuple(np.diff(t)) for t in times} == {(1,) * 3, (-1,) * 3}


def test_flips_and_crops_of_a_window() -> None:
    shot = _ramps()
    mirrored, corners = [], set()
    for seed in range(60):
        _, rows, columns = _window(shot, replace(ONLY, flip=0.5), seed)
        steps = np.diff(columns.astype(int), axis=2)
        assert (steps == steps[0, 0, 0]).all()
        assert (np.diff(rows, axis=1) == 1).all()
        mirrored.append(steps[0, 0, 0] == -1)
        corners.add((rows.min(), columns.min()))
    assert 0.3 < np.mean(mirrored) < 0.7
    assert len(corners) > 40
    assert max(max(corner) for corner in corners) <= 40 - SIZE


def test_the_scale_of_a_window_stays_within_its_range_and_the_shot() -> None:
    shot = _ramps()
    for scale, spans in (((1, 1), (15, 15)), ((1.5, 2), (22, 31)), ((2, 9), (30, 39))):
        only = replace(ONLY, scale=scale)
        seen = [int(np.ptp(_window(shot, only, seed)[2])) for seed in range(40)]
        assert spans[0] - 2 <= min(seen) <= max(seen) <= spans[1]
        assert max(seen) >= spans[1] - 3


def test_colours_of_a_window_change_by_curves_within_their_range() -> None:
    shot = np.full((4, SIZE, SIZE, 3), (64, 128, 255), np.uint8)
    still = replace(ONLY, swap_channels=0.5, gain=(0.5, 1), gamma=(1, 2))
    levels = np.array([_window(shot, still, seed)[:, 0, 0, 0] for seed in range(80)])
    orders = {tuple(np.argsort(row)) for row in levels if np.ptp(row) > 60}
    assert len(orders) == 6
    assert levels.max() <= 255
    assert levels.min() >= np.floor(255 * 0.5 * (64 / 255) ** 2)
    steady = replace(still, swap_channels=0, gain=(1, 1), gamma=(1, 1))
    assert (_window(shot, steady)[:, 0, 0, 0] == (64, 128, 255)).all()


def test_names_decide_which_clips_are_held_out() -> None:
    config = DataConfig(cache="")
    names = [f"clip{i}.mp4" for i in range(600)]
    held_out = [is_validation(name, config) for name in names]
    assert 70 < sum(held_out) < 130  # 1 in 6
    half = replace(config, validation_share=0.5)
    assert all(is_validation(n, half) for n, held in zip(names, held_out, strict=True) if held)


def test_a_clip_stays_on_its_side_when_others_are_added(tmp_path: Path) -> None:
    def footage(folder: str, names: range, seed: int) -> str:
        for i in names:
            (tmp_path / folder).mkdir(exist_ok=True)
            write_folder(tmp_path / folder / f"clip{i}", [scene(t, 24, 20, seed) for t in range(4)])
        return str(tmp_path / folder)

    def prepared(*folders: str) -> tuple[int, list[dict[Path, str]]]:
        """Clips decoded, and for both sides of the split the name of every shot."""
        config = DataConfig(
            cache=str(tmp_path / "cache"),
            folders=folders,
            short_side=20,
            validation_share=0.4,
            decoders=1,
        )
        decoded = prepare_data(config).decoded
        sides = [_dataset(config, split=split).shots for split in ("train", "validation")]
        return decoded, [{shot.path: shot.source for shot in side} for side in sides]

    a = footage("a", range(6), seed=0)
    decoded, before = prepared(a)
    assert decoded == 6
    assert all(before)
    b = footage("b", range(4, 8), seed=1)
    footage("a", range(8, 10), seed=0)
    decoded, after = prepared(a, b)
    assert decoded == 2 + 4  # none again
    for old, new in zip(before, after, strict=True):
        assert old.items() <= new.items()
    assert sum(map(len, after)) == 8 + 4
    assert not {*after[0].values()} & {*after[1].values()}
    Path(a).rename(tmp_path / "moved")
    assert prepared(str(tmp_path / "moved"), b) == (0, after)


def test_training_and_validation_share_no_clip(tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    for i in range(6):
        pictures = [scene(t, 24, 20, seed=i + 3 * (t // 8)) for t in range(16)]
        write_folder(footage / f"clip{i}", pictures)
    config = DataConfig(
        cache=str(tmp_path / "cache"),
        folders=(str(footage),),
        short_side=20,
        validation_share=0.4,
        decoders=1,
    )
    assert prepare_data(config).shots == 12
    train, held_out = (_dataset(config, split=split) for split in ("train", "validation"))
    clips = [{shot.source for shot in data.shots} for data in (train, held_out)]
    assert clips[0]
    assert clips[1]
    assert not clips[0] & clips[1]
    assert len(clips[0] | clips[1]) == 6
    assert held_out.config.augment == PLAIN
    expected = np.mean([np.load(s.path)[::8, ::8, ::8].mean((0, 1, 2)) for s in train.shots], 0)
    assert train.mean() == pytest.approx(tuple(expected / 255), abs=2e-3)


def test_the_only_clip_is_trained_on_whatever_its_name(config: DataConfig) -> None:
    Path(config.cache, "1.npy").unlink()
    config = replace(config, validation_share=0.999)
    assert is_validation("0", config)
    assert len(_dataset(config).shots) == 1
    with pytest.raises(
        InputError, match=r"none of 1 clips fell into the validation_share of 0\.999"
    ):
        _dataset(config, split="validation")


def test_footage_that_was_not_prepared_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "footage").mkdir()
    write_folder(tmp_path / "footage" / "clip", [scene(i, 24, 20) for i in range(6)])
    config = DataConfig(
        cache=str(tmp_path / "cache"), folders=(str(tmp_path / "footage"),), validation_share=0
    )
    with pytest.raises(InputError, match=r"prepare_data"):
        _dataset(config)


def test_no_usable_shot_is_an_error(config: DataConfig) -> None:
    with pytest.raises(InputError, match=r"at least 13 frames .* of at most 12 frames and 20 pix"):
        _dataset(config, frames=13)
    with pytest.raises(InputError, match=r"21 x 21 pixels"):
        _dataset(config, size=21)
    with pytest.raises(InputError, match=r"none of \d clips fell into the validation_share of"):
        _dataset(config, split="validation")
    np.save(Path(config.cache) / "grey.npy", np.zeros((12, 20, 24), np.uint8))
    with pytest.raises(InputError, match=r"grey\.npy is no shot; expected \(F, H, W, 3\)"):
        _dataset(config)


def test_wrong_options_are_named() -> None:
    for options, message in (
        ({"short_side": 4}, "short_side: expected at least 8 pixels, got 4"),
        ({"crop": "face"}, "crop: expected .* got 'face'"),
        ({"validation_share": 1.0}, "validation_share: .* got 1.0"),
        ({"decoders": 0}, "decoders: expected at least 1, got 0"),
    ):
        with pytest.raises(InputError, match=message):
            DataConfig(cache="cache", **options)
    for options, message in (
        ({"flip": 2}, "augment.flip: expected a share from 0 to 1, got 2"),
        ({"scale": (0.5, 1)}, r"augment.scale: expected 1 <= least <= greatest, got 0.5, 1"),
        ({"speed": 0}, "augment.speed: expected at least 1, got 0"),
        ({"gain": (0.5, 2)}, "augment.gain: expected at most 1, got 2"),
    ):
        with pytest.raises(InputError, match=message):
            AugmentConfig(**options)


def test_holes_are_those_of_the_options(config: DataConfig) -> None:
    boxes = replace(config, holes=HoleConfig(shares={"box": 1}, side=(0.25, 0.25)))
    for index in range(8):
        mask = _dataset(boxes)[index][1]
        assert mask.sum() == FRAMES * 4 * 4


def test_a_black_mask_is_named_before_the_run_and_does_not_end_it(
    config: DataConfig, tmp_path: Path
) -> None:
    black, masks = tmp_path / "black", tmp_path / "masks"
    for folder in (black, masks):
        folder.mkdir()
        write_image(folder / "black.png", np.zeros((9, 9), np.uint8))
    config = replace(config, holes=HoleConfig(shares={"mask": 1}, masks=str(black)))
    with pytest.raises(InputError, match=r"none of 1 masks can be used: .*black\.png"):
        prepare_data(config)
    write_image(masks / "object.png", np.full((9, 9), 255, np.uint8))
    config = replace(config, holes=HoleConfig(shares={"mask": 1}, masks=str(masks)))
    with pytest.warns(InputWarning, match=r"1 of the masks cannot be used: .*black\.png"):
        prepared = prepare_data(config)
    assert [*prepared.skipped] == [masks / "black.png"]
    data = _dataset(config)
    assert all(data[index][1].any() for index in data.indices)
