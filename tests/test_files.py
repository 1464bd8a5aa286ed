# SPDX-License-Identifier: Apache-2.0
"""The main job on files, from the decoder to the renamed output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import media
import numpy as np
import pytest
from models import random_model
from PIL import Image

from vinpaint.errors import InputError, InputWarning
from vinpaint.files import inpaint_video
from vinpaint.inpainting import Inpainter
from vinpaint.video.masks import dilated
from vinpaint.video.reader import open_clip


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    return Inpainter(random_model(), chunk_frames=5)


def _frames(path: Path) -> np.ndarray:
    return np.stack([frame.rgb for frame in open_clip(path).frames()])


def _mask(size: tuple[int, int] = (64, 48)) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[14:30, 20:40] = 255
    return mask


def test_a_folder_gives_a_folder_equal_outside_the_dilated_hole(
    inpainter: Inpainter, tmp_path: Path
) -> None:
    pictures = [media.scene(i, 64, 48) for i in range(7)]
    media.write_folder(tmp_path / "in", pictures)
    media.write_image(tmp_path / "mask.png", _mask())
    report = inpaint_video(
        tmp_path / "in", tmp_path / "out", mask=tmp_path / "mask.png", inpainter=inpainter
    )
    assert (report.frames, report.hole_frames) == (7, 7)
    before, after = _frames(tmp_path / "in"), _frames(tmp_path / "out")
    hole = dilated(_mask(), 4) > 0
    assert np.array_equal(after[:, ~hole], before[:, ~hole])
    assert not np.array_equal(after[:, hole], before[:, hole])
    names = [[p.name for p in sorted((tmp_path / n).iterdir())] for n in ("in", "out")]
    assert names[0] == names[1]


@pytest.mark.parametrize("form", ["image", "folder", "video", "box"])
def test_every_form_of_the_same_mask_gives_the_same_output(
    inpainter: Inpainter, tmp_path: Path, form: str
) -> None:
    source = media.write_video(tmp_path / "in.mp4", frames=6, size=(64, 48))
    media.write_image(tmp_path / "mask.png", _mask())
    media.write_folder(tmp_path / "masks", [_mask()] * 6)
    picture = np.repeat(_mask()[..., None], 3, axis=2)
    media.write_video(
        tmp_path / "mask.mkv", frames=6, size=(64, 48), codec="ffv1", pictures=[picture] * 6
    )
    mask = {"image": "mask.png", "folder": "masks", "video": "mask.mkv", "box": None}[form]
    inpaint_video(
        source,
        tmp_path / "out.mkv",
        mask=mask and tmp_path / mask,
        boxes=["20,14,20,16"] if mask is None else [],
        codec="ffv1",
        inpainter=inpainter,
    )
    inpaint_video(
        tmp_path / "in.mp4",
        tmp_path / "expected.mkv",
        boxes=["20,14,20,16@0-2", "20,14,20,16@3-"],
        codec="ffv1",
        inpainter=inpainter,
    )
    assert np.array_equal(_frames(tmp_path / "out.mkv"), _frames(tmp_path / "expected.mkv"))


def test_a_video_keeps_count_size_rate_and_audio(inpainter: Inpainter, tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "in.mp4", frames=20, size=(64, 48), rate=30, audio=True)
    output = tmp_path / "out.mp4"
    inpaint_video(source, output, boxes=["20,14,20,16@5-9"], inpainter=inpainter)
    before, after = open_clip(source), open_clip(output)
    assert (after.info.width, after.info.height) == (64, 48)
    assert after.info.rate == before.info.rate == 30
    assert media.shown_times(output) == media.shown_times(source)
    assert media.packets(output, "audio") == media.packets(source, "audio")


def test_lossless_output_is_exact_outside_the_hole_in_the_native_format(
    inpainter: Inpainter, tmp_path: Path
) -> None:
    source = media.write_video(tmp_path / "in.mp4", frames=6, size=(64, 48))
    inpaint_video(
        source, tmp_path / "out.mkv", boxes=["20,14,20,16"], codec="ffv1", inpainter=inpainter
    )
    box = np.zeros((48, 64), np.uint8)
    box[14:30, 20:40] = 255
    hole = dilated(box, 4) > 0
    before, after = (media.native_planes(p) for p in (source, tmp_path / "out.mkv"))
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old[0][~hole], new[0][~hole])
        assert not np.array_equal(old[0][hole], new[0][hole])


def test_nothing_crosses_a_cut(inpainter: Inpainter, tmp_path: Path) -> None:
    first = [media.scene(i, 64, 48, seed=0) for i in range(12)]
    others = {s: [255 - media.scene(i, 64, 48, seed=s) // 2 for i in range(12)] for s in (3, 4)}
    outputs = []
    for seed, second in others.items():
        media.write_folder(tmp_path / f"in{seed}", first + second)
        report = inpaint_video(
            tmp_path / f"in{seed}",
            tmp_path / f"out{seed}",
            boxes=["20,14,20,16"],
            inpainter=inpainter,
        )
        assert report.shots == 2
        outputs.append(_frames(tmp_path / f"out{seed}"))
    assert np.array_equal(outputs[0][:12], outputs[1][:12])
    assert not np.array_equal(outputs[0][12:], outputs[1][12:])


def test_a_shot_that_is_all_hole_is_warned_of(inpainter: Inpainter, tmp_path: Path) -> None:
    first = [media.scene(i, 64, 48) for i in range(12)]
    second = [255 - media.scene(i, 64, 48, seed=3) // 2 for i in range(12)]
    media.write_folder(tmp_path / "in", first + second)
    with pytest.warns(InputWarning, match="frames 12 to 23, a whole shot"):
        inpaint_video(
            tmp_path / "in", tmp_path / "out", boxes=["0,0,64,48@12-23"], inpainter=inpainter
        )


def test_the_contact_sheet_shows_frames_with_a_hole(inpainter: Inpainter, tmp_path: Path) -> None:
    media.write_folder(tmp_path / "in", [media.scene(i, 64, 48) for i in range(30)])
    for name, boxes in (("sheet", ["20,14,20,16@17-17"]), ("all", ["20,14,20,16"])):
        inpaint_video(
            tmp_path / "in",
            tmp_path / f"{name}-out",
            boxes=boxes,
            preview=tmp_path / f"{name}.png",
            inpainter=inpainter,
        )
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "all.png") as whole:
        assert sheet.height < whole.height / 3  # one frame, not eight


def test_an_empty_mask_gives_the_input(inpainter: Inpainter, tmp_path: Path) -> None:
    media.write_folder(tmp_path / "in", [media.scene(i, 64, 48) for i in range(4)])
    media.write_image(tmp_path / "mask.png", _mask() // 255)
    with pytest.warns(InputWarning, match="lightest mask value 1 of 255"):
        report = inpaint_video(
            tmp_path / "in", tmp_path / "out", mask=tmp_path / "mask.png", inpainter=inpainter
        )
    assert report.hole_frames == 0
    assert np.array_equal(_frames(tmp_path / "in"), _frames(tmp_path / "out"))


def test_feathering_blends_inside_the_hole_only(inpainter: Inpainter, tmp_path: Path) -> None:
    media.write_folder(tmp_path / "in", [media.scene(i, 64, 48) for i in range(3)])
    common = {"boxes": ["16,12,32,24"], "dilate": 0, "inpainter": inpainter}
    inpaint_video(tmp_path / "in", tmp_path / "hard", **common)
    inpaint_video(tmp_path / "in", tmp_path / "soft", feather=6, **common)
    before, hard, soft = (_frames(tmp_path / n).astype(int) for n in ("in", "hard", "soft"))
    assert np.array_equal(soft[:, 18:30, 24:40], hard[:, 18:30, 24:40])
    assert abs(soft - before)[:, 12].mean() < 0.5 * abs(hard - before)[:, 12].mean()


def test_progress_counts_every_frame(inpainter: Inpainter, tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "in.mp4", frames=9, size=(64, 48))
    calls: list[tuple[int, int]] = []
    inpaint_video(
        source,
        tmp_path / "out.mp4",
        boxes=["20,14,20,16"],
        inpainter=inpainter,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert [call for call in calls if call[0]] == [(i, 9) for i in range(1, 10)]
    assert calls[0] == (0, 9)  # while the clip is looked through


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected one of the two, got neither"),
        ({"mask": "mask.png", "boxes": ["1,1,4,4"]}, "expected one of the two, got both"),
        ({"mask": "small.png"}, "--mask-resize"),
        ({"mask": "five"}, "the mask has 5 frames, but the clip has 4"),
        ({"mask": "full.png"}, "covers every pixel"),
        ({"boxes": ["1,1,4,4"], "preview": "out"}, "--preview: .* written over --output"),
        ({"boxes": ["1,1,4,4"], "compare": "out/c.mp4"}, "--compare: .* written over --output"),
        ({"boxes": ["1,1,4,4"], "preview": "in"}, "--preview"),
        ({"boxes": ["1,1,4,4"], "compare": "in/00000.png"}, "--compare"),
    ],
)
def test_bad_input_leaves_nothing_behind(
    inpainter: Inpainter, tmp_path: Path, options: dict, message: str
) -> None:
    media.write_folder(tmp_path / "in", [media.scene(i, 64, 48) for i in range(4)])
    media.write_folder(tmp_path / "five", [_mask()] * 5)
    media.write_image(tmp_path / "mask.png", _mask())
    media.write_image(tmp_path / "small.png", _mask((32, 40)))
    media.write_image(tmp_path / "full.png", np.full((48, 64), 255, np.uint8))
    before = sorted(tmp_path.rglob("*"))
    options = {k: v if k == "boxes" else tmp_path / v for k, v in options.items()}
    with pytest.raises(InputError, match=message):
        inpaint_video(tmp_path / "in", tmp_path / "out", inpainter=inpainter, **options)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_is_a_link_is_followed(inpainter: Inpainter, tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "in.mp4", frames=4, size=(64, 48))
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.mp4"
    target.write_bytes(b"old")
    (tmp_path / "link.mp4").symlink_to(target)
    inpaint_video(
        source, tmp_path / "link.mp4", boxes=["1,1,9,9"], overwrite=True, inpainter=inpainter
    )
    assert (tmp_path / "link.mp4").is_symlink()
    assert open_clip(target).info.width == 64


@pytest.mark.parametrize("crf", [-1, 64, float("nan")])
def test_a_rate_factor_out_of_range_is_refused(
    inpainter: Inpainter, tmp_path: Path, crf: float
) -> None:
    source = media.write_video(tmp_path / "in.mp4", frames=4, size=(64, 48))
    with pytest.raises(InputError, match="--crf: expected 0"):
        inpaint_video(source, tmp_path / "out.mp4", boxes=["1,1,9,9"], crf=crf, inpainter=inpainter)


def test_a_failed_run_leaves_an_existing_output_alone(inpainter: Inpainter, tmp_path: Path) -> None:
    source = media.write_video(tmp_path / "in.mp4", frames=4, size=(64, 48))
    (tmp_path / "out.mp4").write_bytes(b"precious")
    with pytest.raises(InputError, match="--overwrite"):
        inpaint_video(source, tmp_path / "out.mp4", boxes=["1,1,9,9"], inpainter=inpainter)
    with pytest.raises(InputError, match="covers every pixel"):
        inpaint_video(
            source, tmp_path / "out.mp4", boxes=["0,0,64,48"], overwrite=True, inpainter=inpainter
        )
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


MEASURE = """
import resource, sys
import torch
from models import random_model
from vinpaint.files import inpaint_video
from vinpaint.inpainting import Inpainter
torch.set_num_threads(2)
inpainter = Inpainter(random_model(), chunk_frames=8)
inpaint_video(sys.argv[1], sys.argv[2], boxes=["30,20,24,16"], inpainter=inpainter, codec="ffv1")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """Peak resident memory of a clip six times as long: within a tenth; its frames are 138 MB more."""
    peaks = []
    for frames in (40, 240):
        source = media.write_video(tmp_path / f"{frames}.mp4", frames=frames, size=(640, 360))
        command = [sys.executable, "-c", MEASURE, str(source), str(tmp_path / f"{frames}.mkv")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0], peaks
