# SPDX-License-Identifier: Apache-2.0
"""The frame operators on a GPU against the reference on the CPU."""

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

pytestmark = pytest.mark.needs_cuda

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 32, 240, 432)])
def test_prepare_matches_reference(dtype, values, shape):
    frames, mask = make_frames(shape, values)
    prepared = ops.prepare_frames(frames.cuda(), mask.cuda(), MEAN.cuda(), dtype=dtype, grid=GRID)
    check_prepared(prepared, frames, mask, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 32, 240, 432)])
def test_composite_matches_reference(dtype, values, shape):
    frames, mask = make_frames(shape, values)
    completed = make_completed(shape, dtype)
    for _ in range(2):
        composited = ops.composite_frames(completed.cuda(), frames.cuda(), mask.cuda())
        check_composited(composited, completed, frames, mask)
        completed[0, 1] = torch.nan
