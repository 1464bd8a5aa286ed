# SPDX-License-Identifier: Apache-2.0
"""The main job in memory: exact chunks, untouched pixels, cuts, working sizes, bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from models import random_model

from vinpaint.errors import InputError
from vinpaint.inpainting import Inpainter
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.nn.prefill import harmonic_fill
from vinpaint.painting import Given
from vinpaint.propagation import Propagator
from vinpaint.propagation.completion import CONTEXT_PAIRS
from vinpaint.propagation.propagator import CHUNK_FRAMES
from vinpaint.video.windows import CONTEXT, WORKING_HOLE, make_plan


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    return Inpainter(random_model())


def _clip(
    frames: int = 6, height: int = 48, width: int = 56, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    clip = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    mask = np.zeros((frames, height, width), np.uint8)
    mask[:, 10:26, 12:30] = 255
    return clip, mask


def test_known_pixels_are_untouched_and_the_hole_is_filled(inpainter: Inpainter) -> None:
    clip, mask = _clip()
    before = clip.copy()
    filled = inpainter(clip, mask)
    assert filled.dtype == np.uint8
    assert filled.shape == clip.shape
    assert np.array_equal(clip, before)
    assert np.array_equal(filled[mask == 0], clip[mask == 0])
    assert not np.array_equal(filled[mask > 0], clip[mask > 0])


def test_the_hole_is_filled_from_known_pixels_only(inpainter: Inpainter) -> None:
    clip, mask = _clip()
    other = clip.copy()
    other[mask > 0] = 255 - other[mask > 0]
    assert np.array_equal(inpainter(clip, mask), inpainter(other, mask))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefill": "smooth"},
        {"prefill": "carried"},
        {"prefill": "carried", "confidence": True},
        {"prefill": "carried", "confidence": True, "reduction": 4},
        {"reduction": 4},
        {"mode": "2dcn", "prefill": "smooth"},
        {"temporal_stride": True},
        {"width": 0.25},
    ],
    ids=str,
)
def test_the_pipeline_computes_the_models_forward(options: dict) -> None:
    clip, mask = _clip(8, 32, 48)
    model = random_model(InpainterConfig(**options))
    frames = torch.from_numpy(clip).permute(3, 0, 1, 2)[None] / 255
    unknown = (mask != 0).astype(np.float32)
    if options.get("prefill") == "carried":
        unknown[:, :15] *= 0.3
    with torch.no_grad():
        completed, _ = model(frames, torch.from_numpy(unknown)[None, None])
    plan = make_plan(mask, len(clip))
    (region,) = plan.shots[0].regions
    assert not region.resized
    whole = replace(region, top=0, left=0, height=32, width=48, working_height=32, working_width=48)
    given = [Given(*frame) for frame in zip(clip, mask, unknown, strict=True)]
    patches = np.stack(list(Inpainter(model).painter.complete(given, list(range(8)), whole)))
    expected = (completed[0].clamp(0, 1) * 255).round().permute(1, 2, 3, 0).numpy()
    assert np.abs(patches.astype(int) - expected)[mask > 0].max() <= 1


def test_a_smooth_fill_is_made_at_full_size() -> None:
    clip, mask = _clip(2, 160, 160)
    mask[:] = 0
    mask[:, 30:130, 30:130] = 255
    (region,) = make_plan(mask, 2).shots[0].regions
    assert region.resized
    assert (region.height, region.width) == (160, 160)
    model = VideoInpainter(InpainterConfig(prefill="smooth"))  # adds nothing yet
    frames = torch.from_numpy(clip).permute(3, 0, 1, 2)[None] / 255
    fill = harmonic_fill(frames, torch.from_numpy(mask != 0)[None, None].float())
    expected = (fill[0] * 255).round().permute(1, 2, 3, 0).numpy()
    assert np.abs(Inpainter(model)(clip, mask).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("confidence", [False, True])
@pytest.mark.parametrize("side", [24, 64], ids=["whole size", "reduced"])
def test_networks_that_add_nothing_leave_what_was_carried(side: int, confidence: bool) -> None:
    frames, height, width = 12, 96, 128
    scene = cv2.resize(
        np.random.default_rng(1).integers(0, 256, (25, 33, 3), dtype=np.uint8), (width, height)
    )
    clip = np.repeat(scene[None], frames, axis=0)
    mask = np.zeros((frames, height, width), np.uint8)
    for t, plane in enumerate(mask):
        plane[16 : 16 + side, 4 * t : 4 * t + side] = 255
    plan = make_plan(mask, frames)
    assert plan.shots[0].regions[0].resized == (side > WORKING_HOLE)
    model = VideoInpainter(InpainterConfig(prefill="carried", confidence=confidence))
    filled = Inpainter(model)(clip, mask)
    carried = [*Propagator()(zip(clip, mask, strict=True), plan)]
    for picture, (image, remaining, _) in zip(filled, carried, strict=True):
        empty = torch.from_numpy(remaining != 0)[None, None, None].float()
        values = torch.from_numpy(image).permute(2, 0, 1)[None, :, None].float()
        expected = harmonic_fill(values, empty)[0, :, 0].permute(1, 2, 0).numpy()
        assert np.abs(picture - expected).max() <= 1
    # Without propagation nothing is carried, and the whole hole is filled smoothly.
    alone = Inpainter(model, propagate="off")(clip, mask)
    smooth = VideoInpainter(InpainterConfig(prefill="smooth"))
    assert np.array_equal(alone, Inpainter(smooth, propagate="off")(clip, mask))


def test_chunks_equal_one_shot() -> None:
    frames = 40
    clip, mask = _clip(frames, 32, 32)
    mask[5:9] = 0  # frames without a hole inside the shot
    model = random_model()
    one_shot = Inpainter(model, chunk_frames=frames, propagate="off")
    plan = make_plan(mask, frames)
    (region,) = plan.shots[0].regions
    pairs = [Given(*pair) for pair in zip(clip, mask, strict=True)]
    holed = [i for i in range(frames) if mask[i].any()]
    expected = np.stack(list(one_shot.painter.complete(pairs, holed, region)))
    for chunk_frames in (7, 16):
        chunked = Inpainter(model, chunk_frames=chunk_frames, propagate="off")
        patches: list[np.ndarray] = []
        complete: Callable = chunked.painter.complete

        def record(*args, complete=complete, patches=patches):  # type: ignore[no-untyped-def]
            for patch in complete(*args):
                patches.append(patch.copy())
                yield patch

        chunked.painter.complete = record  # type: ignore[method-assign]
        filled = np.stack(list(chunked.fill(zip(clip, mask, strict=True), plan)))
        np.testing.assert_allclose(np.stack(patches), expected, atol=1e-5, rtol=0)
        assert np.array_equal(filled[mask == 0], clip[mask == 0])


def test_nothing_is_taken_from_across_a_cut(inpainter: Inpainter) -> None:
    clip, mask = _clip(10)
    other = clip.copy()
    other[6:] = 255 - other[6:]
    assert np.array_equal(inpainter(clip, mask, cuts=[6])[:6], inpainter(other, mask, cuts=[6])[:6])
    assert not np.array_equal(inpainter(clip, mask)[:6], inpainter(other, mask)[:6])


def test_only_the_neighbourhood_is_looked_at(inpainter: Inpainter) -> None:
    clip = np.random.default_rng(1).integers(0, 256, (3, 48, 300, 3), dtype=np.uint8)
    mask = np.zeros((48, 300), np.uint8)
    mask[16:32, 16:32] = 1
    other = clip.copy()
    other[:, :, 32 + CONTEXT + 8 :] = 0
    assert np.array_equal(inpainter(clip, mask)[:, :, :32], inpainter(other, mask)[:, :, :32])


def test_a_thick_hole_is_filled_at_a_reduced_size(inpainter: Inpainter) -> None:
    clip = np.full((2, 200, 200, 3), 90, np.uint8)
    mask = np.zeros((2, 200, 200), bool)
    mask[:, 40:150, 40:150] = True
    filled = inpainter(clip, mask)
    assert np.array_equal(filled[~mask], clip[~mask])
    assert filled[mask].std() > 0


def test_tensors_in_tensors_out(inpainter: Inpainter) -> None:
    clip, mask = _clip()
    filled = inpainter(torch.from_numpy(clip), torch.from_numpy(mask > 0))
    assert isinstance(filled, torch.Tensor)
    assert np.array_equal(filled.numpy(), inpainter(clip, mask))


def test_the_same_clip_gives_the_same_bits(inpainter: Inpainter) -> None:
    clip, mask = _clip(8, 140, 170)  # CombCN takes it a few frames at a time
    first = inpainter(clip, mask)
    assert all(np.array_equal(inpainter(clip, mask), first) for _ in range(3))


def test_values_that_are_no_numbers_are_an_error() -> None:
    model = random_model()
    with torch.no_grad():
        model.comb.conv17.bias.fill_(float("nan"))
    with pytest.raises(ArithmeticError, match="try precision fp32"):
        Inpainter(model)(*_clip())


def test_one_mask_serves_all_frames(inpainter: Inpainter) -> None:
    clip, mask = _clip()
    assert np.array_equal(inpainter(clip, mask[0]), inpainter(clip, mask))


def test_an_empty_mask_gives_the_input(inpainter: Inpainter) -> None:
    clip, mask = _clip()
    assert np.array_equal(inpainter(clip, 0 * mask), clip)


def test_deep_frames_keep_their_depth(inpainter: Inpainter) -> None:
    clip, mask = _clip(3)
    deep = clip.astype(np.uint16) * 257
    filled = np.stack(list(inpainter.fill(zip(deep, mask, strict=True), make_plan(mask, 3))))
    assert filled.dtype == np.uint16
    assert np.array_equal(filled[mask == 0], deep[mask == 0])
    shallow = np.stack(list(inpainter.fill(zip(clip, mask, strict=True), make_plan(mask, 3))))
    np.testing.assert_allclose(filled / 257, shallow, atol=0.51)


@pytest.mark.parametrize("reach", [None, 5])
def test_a_stream_is_read_no_further_than_chunk_and_halo(reach: int | None) -> None:
    propagate = "off" if reach is None else Propagator(reach=reach)
    inpainter = Inpainter(random_model(), chunk_frames=4, propagate=propagate)
    clip, mask = _clip(60, 16, 16)
    mask[:] = 0
    mask[:, 4:8, 4:8] = 1
    read = 0

    def frames():  # type: ignore[no-untyped-def]
        nonlocal read
        for frame in clip:
            read += 1
            yield frame

    filled = inpainter.fill(zip(frames(), mask, strict=True), make_plan(mask, 60))
    ahead = 0 if reach is None else CHUNK_FRAMES + reach + CONTEXT_PAIRS
    for done in range(1, 20):
        next(filled)
        assert read <= done - 1 + 4 + inpainter.model.halo + ahead


def test_real_pixels_come_first() -> None:
    """Under a still camera a moving hole is filled with what is behind it, whatever the networks say."""
    scene = np.random.default_rng(3).integers(0, 256, (24, 28, 3), np.uint8)
    scene = np.kron(scene, np.ones((4, 4, 1), np.uint8))  # (96, 112, 3)
    clip = np.stack([scene] * 12)
    mask = np.zeros(clip.shape[:3], np.uint8)
    for index, plane in enumerate(mask):
        plane[40:56, 10 + 7 * index : 24 + 7 * index] = 1
    model = random_model()
    auto = Inpainter(model)(clip, mask)
    assert np.abs(auto.astype(int) - clip)[mask > 0].mean() < 4
    off = Inpainter(model, propagate="off")(clip, mask)
    assert np.abs(off.astype(int) - clip)[mask > 0].mean() > 20
    still = np.ascontiguousarray(np.broadcast_to(mask[4], mask.shape))  # never uncovered
    for one, other in zip(
        Inpainter(model)(clip, still), Inpainter(model, propagate="off")(clip, still), strict=True
    ):
        assert np.array_equal(one, other)


def test_chunks_change_nothing_after_propagation() -> None:
    clip, mask = _clip(40, 48, 56)
    clip[:] = clip[:1]
    for index, plane in enumerate(mask):
        plane[:] = np.roll(plane, index // 2 - 10, axis=1)
    model = random_model()
    fills = [Inpainter(model, chunk_frames=chunk)(clip, mask) for chunk in (7, 40)]
    assert np.abs(fills[0].astype(int) - fills[1]).max() <= 1


def test_a_way_to_propagate_that_is_none_is_an_error() -> None:
    with pytest.raises(InputError, match="--propagate: expected auto or off, got 'on'"):
        Inpainter(random_model(), propagate="on")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, m: (c.astype(np.float32), m), "frames: expected dtype uint8, got float32"),
        (lambda c, m: (np.where(m[..., None] > 0, np.nan, c), m), "NaN"),
        (
            lambda c, m: (c, np.full(m.shape, np.nan)),
            "mask: expected dtype uint8 or bool, got float64 that contains NaN",
        ),
        (lambda c, m: (c[..., :2], m), r"frames: expected shape \(F, H, W, 3\)"),
        (lambda c, m: (c[:0], m[:0]), "no side 0"),
        (lambda c, m: (c, m[:3]), r"mask: expected shape \(6, 48, 56\)"),
        (lambda c, m: (c, m[:, :20]), "mask: expected shape"),
        (
            lambda c, m: (c.tolist(), m),
            "frames: expected a NumPy array or a torch tensor, got list",
        ),
        (lambda c, m: (c, np.ones_like(m)), "covers every pixel"),
    ],
)
def test_bad_input_is_named(inpainter: Inpainter, change: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message):
        inpainter(*change(*_clip()))
