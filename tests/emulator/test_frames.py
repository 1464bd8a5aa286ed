# SPDX-License-Identifier: Apache-2.0
"""The frame kernels, in the emulator, against the reference."""

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

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("shape", SHAPES)
def test_prepare_matches_reference(emulated, dtype, values, shape):
    frames, mask = make_frames(shape, values)
    full, reduced = emulated.prepare_frames(frames, mask, MEAN, dtype, GRID, True, True)
    check_prepared((full, reduced), frames, mask, dtype)
    only, nothing = emulated.prepare_frames(frames, mask, MEAN, dtype, GRID, True, False)
    assert torch.equal(only, full)
    assert nothing.shape == (0,)
    nothing, only = emulated.prepare_frames(frames, mask.bool(), MEAN, dtype, GRID, False, True)
    assert torch.equal(only, reduced)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("shape", SHAPES)
def test_composite_matches_reference(emulated, dtype, values, shape):
    frames, mask = make_frames(shape, values)
    completed = make_completed(shape, dtype)
    check_composited(emulated.composite_frames(completed, frames, mask), completed, frames, mask)
    completed[0, 1] = torch.nan
    check_composited(emulated.composite_frames(completed, frames, mask), completed, frames, mask)


def test_double_is_refused(emulated):
    frames, mask = make_frames((1, 1, 8, 8))
    with pytest.raises(
        RuntimeError, match="dtype must be float32, bfloat16 or float16, got Double"
    ):
        emulated.prepare_frames(frames, mask, MEAN, torch.float64, GRID, True, True)
