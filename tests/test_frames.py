# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from frames_cases import (
    GRID,
    MEAN,
    SHAPES,
    VALUES,
    check_composited,
    check_prepared,
    make_completed,
    make_frames,
)

from vinpaint import ops

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def prepare(frames, mask, dtype=torch.float32, **options):
    return ops.prepare_frames(frames, mask, MEAN, dtype=dtype, grid=GRID, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("shape", SHAPES)
def test_prepare_matches_reference(dtype, values, shape):
    frames, mask = make_frames(shape, values)
    check_prepared(prepare(frames, mask, dtype), frames, mask, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("shape", SHAPES)
def test_composite_matches_reference(dtype, values, shape):
    frames, mask = make_frames(shape, values)
    completed = make_completed(shape, dtype)
    check_composited(ops.composite_frames(completed, frames, mask), completed, frames, mask)


def test_masks_of_bool_and_views():
    frames, mask = make_frames((1, 3, 20, 30))
    completed = make_completed((1, 3, 20, 30))
    frames, mask = frames[:, ::2, 1:, 2:], mask[:, ::2, 1:, 2:]
    completed = completed[:, :, ::2]
    check_prepared(prepare(frames, mask.bool()), frames, mask, torch.float32)
    check_composited(ops.composite_frames(completed, frames, mask.bool()), completed, frames, mask)


def test_only_what_is_asked_for():
    frames, mask = make_frames((1, 2, 13, 21))
    full, reduced = prepare(frames, mask)
    only_full, nothing = prepare(frames, mask, reduced=False)
    assert torch.equal(only_full, full)
    assert nothing.shape == (0,)
    nothing, only_reduced = prepare(frames, mask, full=False)
    assert torch.equal(only_reduced, reduced)
    assert nothing.shape == (0,)


def test_hole_takes_nothing_of_the_frame():
    frames, mask = make_frames((1, 2, 16, 16))
    other = torch.where(mask[..., None] != 0, 255 - frames, frames)
    assert torch.equal(prepare(frames, mask)[0], prepare(other, mask)[0])


def test_every_value_survives():
    """What comes from the frames goes back unchanged."""
    for values in VALUES:
        peak = torch.iinfo(values).max
        frames = torch.arange(peak + 1).to(values).view(1, 1, -1, 16, 1).expand(-1, -1, -1, -1, 3)
        empty = torch.zeros(frames.shape[:4], dtype=torch.uint8)
        full, _ = prepare(frames, empty)
        composited, invalid = ops.composite_frames(full[:, :3], torch.zeros_like(frames), empty + 1)
        assert torch.equal(composited.int(), frames.int())
        assert invalid == 0


def test_not_a_number_is_counted_in_the_hole_only():
    frames, mask = make_frames((1, 2, 16, 16))
    completed = (
        torch.where(mask.unsqueeze(1) != 0, 0.5, torch.nan).expand(-1, 3, -1, -1, -1).clone()
    )
    assert ops.composite_frames(completed, frames, mask)[1] == 0
    completed[0, 1, 0, 12, 3] = torch.nan
    check_composited(ops.composite_frames(completed, frames, mask), completed, frames, mask)
    completed[0, 1, 0, 12, 3] = torch.inf  # clamped
    check_composited(ops.composite_frames(completed, frames, mask), completed, frames, mask)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_no_frames(shape):
    frames, mask = (
        torch.zeros((*shape, 3), dtype=torch.uint8),
        torch.zeros(shape, dtype=torch.uint8),
    )
    full, reduced = prepare(frames, mask)
    assert full.shape == (shape[0], 4, shape[1], 8, 8)
    assert reduced.shape == (shape[0], 4, shape[1], 4, 4)
    composited, invalid = ops.composite_frames(full[:, :3], frames, mask)
    assert composited.shape == frames.shape
    assert invalid == 0


def test_opcheck():
    frames, mask = make_frames((1, 2, 13, 21))
    for wanted in [(True, True), (True, False), (False, True)]:
        torch.library.opcheck(
            torch.ops.vinpaint.prepare_frames,
            (frames, mask, MEAN, torch.bfloat16, GRID, *wanted),
        )
    torch.library.opcheck(
        torch.ops.vinpaint.composite_frames, (make_completed((1, 2, 13, 21)), frames, mask)
    )


def test_compile_fullgraph():
    frames, mask = make_frames((1, 2, 13, 21))

    def there_and_back(images, hole):
        full, reduced = prepare(images, hole)
        return ops.composite_frames(full[:, :3] * 0.5, images, hole)[0], reduced

    compiled = torch.compile(there_and_back, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(compiled(frames, mask), there_and_back(frames, mask), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, m: {"frames": f.float()}, "frames must be uint8 or uint16, got Float"),
        (lambda f, m: {"frames": f[..., :2]}, r"frames must have the shape \(N, F, H, W, 3\), got"),
        (lambda f, m: {"mask": m.float()}, "mask must be uint8 or bool, got Float"),
        (lambda f, m: {"mask": m[0]}, r"mask must have the shape \(1, 2, 13, 21\), got \(2, 13"),
        (lambda f, m: {"mean": MEAN[:2]}, "mean must have 3 values, got 2"),
        (lambda f, m: {"dtype": torch.int32}, "dtype must be float32, .* got Int"),
        (
            lambda f, m: {"mean": MEAN.to("meta")},
            "mean must be on the device of frames, cpu, got meta",
        ),
        (lambda f, m: {"grid": 3}, "grid must be even and positive, got 3"),
        (lambda f, m: {"frames": f[:, :, :0], "mask": m[:, :, :0]}, "at least one pixel"),
    ],
)
def test_bad_input_to_prepare(change, message):
    frames, mask = make_frames((1, 2, 13, 21))
    arguments = {"frames": frames, "mask": mask, "mean": MEAN, "dtype": torch.float32, "grid": 8}
    with pytest.raises(RuntimeError, match="prepare_frames: .*" + message):
        ops.prepare_frames(**arguments | change(frames, mask))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, f, m: (c.int(), f, m), "completed must be float32, .* got Int"),
        (
            lambda c, f, m: (c[..., :9], f, m),
            r"completed must have the shape .*\(1, 3, 2, 13, 21\)",
        ),
        (lambda c, f, m: (c[:, :2], f, m), "completed must have the shape"),
        (lambda c, f, m: (c, f.int(), m), "frames must be uint8 or uint16, got Int"),
        (lambda c, f, m: (c, f, m[:, :1]), "mask must have the shape"),
        (
            lambda c, f, m: (c, f, m.to("meta")),
            "mask must be on the device of frames, cpu, got meta",
        ),
    ],
)
def test_bad_input_to_composite(change, message):
    shape = (1, 2, 13, 21)
    with pytest.raises(RuntimeError, match="composite_frames: " + message):
        ops.composite_frames(*change(make_completed(shape), *make_frames(shape)))
