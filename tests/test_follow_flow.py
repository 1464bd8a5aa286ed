# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vinpaint import ops, reference


def _case(
    seed: int, frames: int = 7, height: int = 20, width: int = 28, cell: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    grid = frames, height // cell, width // cell
    flow = 3 * torch.randn((*grid, 2), generator=generator)
    error = torch.rand(grid, generator=generator)
    error[torch.rand(grid, generator=generator) < 0.05] = torch.inf
    hole = torch.rand((frames, height, width), generator=generator) < 0.8
    return flow, error, hole


def _check(found: tuple[Tensor, Tensor, Tensor], expected: tuple[Tensor, Tensor, Tensor]) -> None:
    assert [t.dtype for t in found] == [torch.int32, torch.float32, torch.float32]
    # Where a place lies between two pixels, the order of a sum decides which is the nearest.
    same = found[0] == expected[0]
    assert same.float().mean() > 0.995
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one[same], other[same], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("cell", [1, 4])
@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("reach", [0, 1, 3, 99, 2**63 - 1])
def test_matches_reference(cell: int, step: int, reach: int) -> None:
    flow, error, hole = _case(cell + step, cell=cell)
    for frame in (0, 3, 6):
        options = {"frame": frame, "step": step, "reach": reach, "cell": cell}
        found = ops.follow_flow(flow, error, hole, **options)
        options["reach"] = min(reach, 99)
        _check(found, reference.follow_flow(flow, error, hole, **options))
        outside = ~hole[frame]
        assert (found[0][outside] == -1).all()
        if reach == 3:
            assert (found[0] >= 0).any() == (0 <= frame + step < len(hole))


def test_takes_bytes_and_views() -> None:
    flow, error, hole = _case(0, frames=12)
    whole = [t[::2] for t in (flow, error, hole)]
    options = {"frame": 2, "step": 1, "reach": 9, "cell": 4}
    expected = ops.follow_flow(*(t.contiguous() for t in whole), **options)
    for mask in (whole[2], 255 * whole[2].to(torch.uint8)):
        for one, other in zip(
            ops.follow_flow(whole[0], whole[1], mask, **options), expected, strict=True
        ):
            assert torch.equal(one, other)


def test_the_place_is_exact_under_a_slow_and_steady_flow() -> None:
    """A third of a pixel a frame: the hole's inner pixels need three frames for each pixel of depth."""
    frames, height, width = 40, 8, 32
    flow = torch.zeros(frames, height, width, 2)
    flow[..., 0] = -1 / 3
    hole = torch.zeros(frames, height, width, dtype=torch.bool)
    hole[:, :, 10:18] = True
    source, place, error = ops.follow_flow(
        flow, torch.full(flow.shape[:3], 0.25), hole, frame=0, step=1, reach=39
    )
    for column in range(10, 18):
        steps = source[4, column].item()
        assert steps == 3 * (column - 10) + 2  # the first place that is nearer to pixel 9
        torch.testing.assert_close(place[4, column], torch.tensor([column - steps / 3, 4.0]))
        assert error[4, column] == pytest.approx(steps / 4)


def test_what_leads_nowhere() -> None:
    flow = torch.zeros(3, 4, 4, 2)
    error = torch.zeros(3, 4, 4)
    hole = torch.ones(3, 4, 4, dtype=torch.bool)
    hole[2] = False

    def sources(flow: Tensor, error: Tensor, reach: int = 9) -> Tensor:
        source, _, off = ops.follow_flow(flow, error, hole, frame=0, step=1, reach=reach)
        assert torch.equal(off.isinf(), source == -1)
        return source

    assert (sources(flow, error) == 2).all()
    assert (sources(flow, error, reach=1) == -1).all()
    blocked = error.clone()
    blocked[1, 2, 3] = torch.inf
    assert (sources(flow, blocked) == -1).nonzero().tolist() == [[2, 3]]
    away = flow.clone()
    away[0, :, :, 0] = 1.5
    assert (sources(away, error) == torch.tensor([2, 2, -1, -1])).all()
    odd = flow.clone()
    odd[0, 1, 1] = torch.nan
    assert (sources(odd, error) == -1).nonzero().tolist() == [[1, 1]]


def test_the_number_of_threads_changes_nothing() -> None:
    flow, error, hole = _case(3, height=64, width=80)
    options = {"frame": 1, "step": 1, "reach": 9, "cell": 4}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = ops.follow_flow(flow, error, hole, **options)
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(ops.follow_flow(flow, error, hole, **options), alone, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("step", [1, -1])
def test_opcheck(step: int) -> None:
    flow, error, hole = _case(1)
    torch.library.opcheck(
        torch.ops.vinpaint.follow_flow.default, (flow, error, hole, 3, step, 5, 4)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"flow": torch.zeros(7, 5, 7, 2, dtype=torch.float64)},
            "flow must be float32, got Double",
        ),
        ({"flow": torch.zeros(6, 5, 7, 2)}, r"flow must have the shape \(F, h, w, 2\).*got \(6, 5"),
        (
            {"error": torch.zeros(7, 5, 6)},
            r"error must have the shape \(7, 5, 7\), got \(7, 5, 6\)",
        ),
        ({"error": torch.zeros(7, 5, 7).int()}, "error must be float32, got Int"),
        ({"hole": torch.zeros(7, 20, 28)}, "hole must be uint8 or bool, got Float"),
        ({"hole": torch.zeros(0, 20, 28).bool()}, "hole must have the shape .* at least one pixel"),
        ({"frame": 7}, "frame must be one of 7, got 7"),
        ({"step": 2}, "step must be 1 or -1, got 2"),
        ({"reach": -1}, "reach must not be negative, got -1"),
        ({"cell": 0}, "cell must be positive, got 0"),
        (
            {"cell": 1},
            r"flow must have a point for every 1 x 1 pixels of \(7, 20, 28\), got \(7, 5",
        ),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    flow, error, hole = _case(0)
    arguments = {"flow": flow, "error": error, "hole": hole, "frame": 0, "step": 1, "reach": 4}
    with pytest.raises(RuntimeError, match=f"follow_flow: {message}"):
        ops.follow_flow(**(arguments | {"cell": 4} | change))
