# SPDX-License-Identifier: Apache-2.0
"""Frames that come one by one: equal to the whole clip, as late as said, with bounded memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from models import random_model

from vinpaint import streaming
from vinpaint.engine.streaming import EngineStream
from vinpaint.errors import InputError
from vinpaint.inpainting import Inpainter
from vinpaint.nn import InpainterConfig, VideoInpainter, fold_batch_norm
from vinpaint.nn.streaming import StreamingCompletion
from vinpaint.propagation import Propagator
from vinpaint.propagation.completion import CONTEXT_PAIRS
from vinpaint.streaming import FULL_LOOKAHEAD, Streamer, waits
from vinpaint.video.windows import WORKING_HOLE, Plan, Shot, make_plan, whole_region

WIDTH = 0.25
"""Of the networks: what is asked here does not depend on it."""


def _completion(seed: int = 0, frames: int = 20):
    net = fold_batch_norm(random_model(InpainterConfig(width=WIDTH))).completion
    assert net is not None
    torch.manual_seed(seed)
    return net, torch.rand(1, 4, frames, 16, 24)


def _streamed(stream: StreamingCompletion, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The outputs, and how many came before the flush."""
    with torch.inference_mode():
        outputs = [out for frame in x.split(1, dim=2) for out in stream.push(frame)]
        early = len(outputs)
        return torch.cat(outputs + stream.flush(), dim=2), early


def _clip(frames: int = 24, height: int = 48, width: int = 64, side: int = 18, seed: int = 0):
    """A still scene, a box that moves through it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    clip = np.repeat(cv2.resize(small, (width, height))[None], frames, axis=0)
    mask = np.zeros((frames, height, width), np.uint8)
    for t, plane in enumerate(mask):
        left = min(width - side, 8 + t)
        plane[10 : 10 + side, left : left + side] = 255
    return clip, mask


def _push_all(streamer: Streamer, clip, masks: Sequence | None = None):
    """The frames that came out, and how late each was."""
    finished, late = [], []
    for t, frame in enumerate(clip):
        for out in streamer.push(frame, None if masks is None else masks[t]):
            late.append(t - len(finished))
            finished.append(out)
    return finished + streamer.flush(), late


def test_3dcn_frame_by_frame_is_that_of_the_whole_clip() -> None:
    net, x = _completion()
    with torch.inference_mode():
        expected = net(x)
    found, early = _streamed(StreamingCompletion(net, waits(FULL_LOOKAHEAD)), x)
    assert early == 20 - 13
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 13])
def test_a_clip_shorter_than_the_lookahead_comes_out_at_the_end(frames: int) -> None:
    net, x = _completion(frames=frames)
    with torch.inference_mode():
        expected = net(x)
    found, early = _streamed(StreamingCompletion(net, waits(FULL_LOOKAHEAD)), x)
    assert early == 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_one_stream_may_follow_another() -> None:
    net, x = _completion()
    stream = StreamingCompletion(net, waits(5))
    first, _ = _streamed(stream, x)
    second, _ = _streamed(stream, x)
    assert torch.equal(first, second)


@pytest.mark.parametrize("lookahead", [0, 1, 4, 8, 12])
def test_with_less_lookahead_no_later_frame_is_looked_at(lookahead: int) -> None:
    net, x = _completion()
    stream = StreamingCompletion(net, waits(lookahead))
    assert stream.lookahead == lookahead
    found, early = _streamed(stream, x)
    assert found.shape[2] == 20
    assert early == 20 - lookahead
    other = x.clone()
    other[:, :, 12:] = torch.rand_like(other[:, :, 12:])
    changed, _ = _streamed(stream, other)
    reached = (found != changed).flatten(3).any(3).any(1)[0].nonzero()[:, 0]
    assert reached.min() == 12 - lookahead


def test_what_has_not_come_is_taken_for_what_came_last() -> None:
    """Of a clip that stands still nothing is lost, once all that is before it has passed."""
    net, x = _completion()
    still = x[:, :, :1].expand(-1, -1, 40, -1, -1)
    with torch.inference_mode():
        whole = net(still)
    found, _ = _streamed(StreamingCompletion(net, waits(0)), still)
    torch.testing.assert_close(
        found[:, :, 13:],
        whole[:, :, 13:27].mean(2, True).expand_as(found[:, :, 13:]),
        rtol=0,
        atol=1e-5,
    )


def test_waits_that_no_layer_has_are_refused() -> None:
    net, _ = _completion()
    for bad in ([0] * 11, [3] + [0] * 11, [0] * 11 + [2], [-1] + [0] * 11):
        with pytest.raises(ValueError, match=re.escape(f"got {bad}")):
            StreamingCompletion(net, bad)
    strided = fold_batch_norm(VideoInpainter(InpainterConfig(temporal_stride=True, width=0.125)))
    assert strided.completion is not None
    with pytest.raises(ValueError, match="strides over frames"):
        StreamingCompletion(strided.completion, [0] * 12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefill": "smooth"},
        {"prefill": "carried", "confidence": True},
        {"mode": "2dcn"},
        {"reduction": 4},
    ],
    ids=str,
)
def test_with_full_lookahead_the_result_is_that_of_the_whole_clip(options: dict) -> None:
    clip, mask = _clip()
    mask[5:8] = 0  # frames without a hole
    inpainter = Inpainter(random_model(InpainterConfig(width=WIDTH, **options)), propagate="off")
    height, width = clip.shape[1:3]
    region = whole_region(height, width, None, WORKING_HOLE)
    plan = Plan((Shot(0, len(clip), (region,)),), len(clip))
    expected = list(inpainter.fill(zip(clip, mask, strict=True), plan))
    streamer = Streamer(inpainter)
    found, late = _push_all(streamer, clip, mask)
    assert set(late) == {0 if options.get("mode") == "2dcn" else FULL_LOOKAHEAD}
    assert len(found) == len(clip)
    difference = np.abs(np.stack(found).astype(int) - np.stack(expected))
    assert difference.max() <= 1  # where the last float's rounding decides
    assert (difference > 0).mean() < 1e-3
    assert np.array_equal(np.stack(found)[mask == 0], clip[mask == 0])


def test_a_fixed_mask_is_looked_at_in_its_neighbourhood_alone() -> None:
    clip, _ = _clip(frames=16, height=160, width=400)
    logo = np.zeros((160, 400), bool)
    logo[10:24, 10:40] = logo[120:140, 350:380] = True  # two neighbourhoods
    inpainter = Inpainter(random_model(InpainterConfig(width=WIDTH)), propagate="off")
    plan = make_plan([logo.view(np.uint8)] * 16, 16)
    assert len(plan.shots[0].regions) == 2
    pairs = ((frame, logo.view(np.uint8)) for frame in clip)
    expected = np.stack(list(inpainter.fill(pairs, plan)))
    found, _ = _push_all(Streamer(inpainter, mask=logo), clip)
    assert np.abs(np.stack(found).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("lookahead", [0, 3, 13])
@pytest.mark.parametrize(
    ("options", "propagate"),
    [({"prefill": "smooth"}, "off"), ({"prefill": "carried", "confidence": True}, "auto")],
    ids=str,
)
def test_the_operators_as_one_graph_give_the_same(
    options: dict, propagate: str, lookahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU captures, here run eagerly."""
    clip, mask = _clip()
    mask[5:8] = 0
    inpainter = Inpainter(
        random_model(InpainterConfig(width=WIDTH, **options)), propagate=propagate
    )
    expected, _ = _push_all(Streamer(inpainter, lookahead=lookahead), clip, mask)
    monkeypatch.setattr(
        streaming,
        "_region_stream",
        lambda inpainter, region, lookahead, _: EngineStream(inpainter.painter, region, lookahead),
    )
    found, late = _push_all(Streamer(inpainter, lookahead=lookahead), clip, mask)
    assert set(late) == {lookahead}
    difference = np.abs(np.stack(found).astype(int) - np.stack(expected))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("lookahead", [0, 3, 8])
def test_a_frame_is_as_late_as_said(lookahead: int) -> None:
    clip, mask = _clip()
    for propagate in ("off", "auto"):
        inpainter = Inpainter(random_model(InpainterConfig(width=WIDTH)), propagate=propagate)
        streamer = Streamer(inpainter, lookahead=lookahead)
        found, late = _push_all(streamer, clip, mask)
        assert set(late) == {lookahead}
        assert len(found) == len(clip)


def _adds_nothing(**options: object) -> Inpainter:
    return Inpainter(VideoInpainter(InpainterConfig(prefill="smooth", width=WIDTH)), **options)


def test_what_was_seen_before_is_carried_forward_and_what_comes_back() -> None:
    clip, mask = _clip(frames=24, width=96)
    errors = {}
    for lookahead in (0, 8):
        found, _ = _push_all(Streamer(_adds_nothing(), lookahead=lookahead), clip, mask)
        wrong = np.abs(np.stack(found).astype(int) - clip)
        errors[lookahead] = [wrong[t][mask[t] > 0].mean() for t in range(24)]
    # The box moves by a pixel a frame and is 18 wide: at the end all behind it was seen before, at first nothing.
    assert np.mean(errors[0][20:]) < 4
    assert np.mean(errors[0][:2]) > 15
    assert np.mean(errors[8][:2]) < 0.8 * np.mean(errors[0][:2])
    assert np.mean(errors[8]) < np.mean(errors[0])


def test_with_enough_lookahead_propagation_is_the_whole_clips() -> None:
    frames = 20
    clip, mask = _clip(frames=frames)
    region = whole_region(*clip.shape[1:3], None, WORKING_HOLE)
    plan = Plan((Shot(0, frames, (region,)),), frames)
    for reach, same in ((4, True), (8, False)):
        inpainter = _adds_nothing(propagate=Propagator(reach=reach))
        expected = np.stack(list(inpainter.fill(zip(clip, mask, strict=True), plan)))
        found, _ = _push_all(Streamer(inpainter, lookahead=4 + CONTEXT_PAIRS), clip, mask)
        assert np.array_equal(np.stack(found), expected) == same


def test_after_a_flush_nothing_is_taken_from_before() -> None:
    clip, mask = _clip()
    streamer = Streamer(_adds_nothing(), lookahead=4)
    _push_all(streamer, 255 - clip, mask)
    again, _ = _push_all(streamer, clip, mask)
    fresh, _ = _push_all(Streamer(_adds_nothing(), lookahead=4), clip, mask)
    assert np.array_equal(np.stack(again), np.stack(fresh))
    assert streamer.flush() == []


def test_a_shot_that_fails_leaves_nothing_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, mask = _clip(frames=10)
    inpainter = _adds_nothing(propagate="off")
    expected, _ = _push_all(Streamer(inpainter, lookahead=4), clip, mask)
    streamer = Streamer(inpainter, lookahead=4)
    real, calls = type(inpainter.painter).composited, []

    def failing(*given: object) -> object:
        calls.append(given)
        if len(calls) == 3:
            raise ArithmeticError("no numbers")
        return real(*given)

    monkeypatch.setattr(type(inpainter.painter), "composited", failing)
    for frame, hole in zip(255 - clip[:5], mask, strict=False):
        streamer.push(frame, hole)
    with pytest.raises(ArithmeticError):
        streamer.flush()  # the third of five
    found, _ = _push_all(streamer, clip, mask)
    assert np.array_equal(np.stack(found), np.stack(expected))
    calls.clear()
    with pytest.raises(ArithmeticError):
        _push_all(streamer, 255 - clip, mask)
    found, _ = _push_all(streamer, clip, mask)
    assert np.array_equal(np.stack(found), np.stack(expected))


def test_an_area_says_where_holes_may_be() -> None:
    clip, mask = _clip(height=96, width=128)
    streamer = Streamer(_adds_nothing(propagate="off"), area=(0, 0, 64, 48))
    found, _ = _push_all(streamer, clip, mask)
    assert np.array_equal(np.stack(found)[mask == 0], clip[mask == 0])
    outside = np.zeros((96, 128), np.uint8)
    outside[60, 60] = 1
    streamer.push(clip[0], mask[0])
    with pytest.raises(InputError, match="no hole outside the area"):
        streamer.push(clip[0], outside)


@pytest.mark.parametrize("propagate", ["off", "auto"])
def test_without_a_hole_frames_go_through(propagate: str) -> None:
    clip, mask = _clip(frames=8)
    inpainter = _adds_nothing(propagate=propagate)
    for streamer, masks in (
        (Streamer(inpainter, lookahead=2, mask=np.zeros_like(mask[0])), None),
        (Streamer(inpainter, lookahead=2), np.zeros_like(mask)),
    ):
        found, _ = _push_all(streamer, clip, masks)
        assert np.array_equal(np.stack(found), clip)


def test_a_buffer_may_be_used_again_after_a_push() -> None:
    clip, mask = _clip(frames=8)
    expected, _ = _push_all(Streamer(_adds_nothing(), lookahead=2), clip, mask)
    streamer, found = Streamer(_adds_nothing(), lookahead=2), []
    buffer, hole = clip[0].copy(), mask[0].copy()
    for frame, now in zip(clip, mask, strict=True):
        buffer[:], hole[:] = frame, now
        found += streamer.push(buffer, hole)
    assert np.array_equal(np.stack(found + streamer.flush()), np.stack(expected))


def test_thick_holes_are_computed_at_a_smaller_size() -> None:
    region = whole_region(200, 400, None, 96)
    assert (region.working_height, region.working_width) == (100, 200)
    thick = np.zeros((200, 400), np.uint8)
    thick[50:146, 100:196] = 255
    (region,) = Streamer(_adds_nothing(), mask=thick, area=(0, 0, 400, 200))._regions(thick)
    assert region.working_height == pytest.approx(100, abs=8)
    region = whole_region(200, 400, (10, 20, 100, 50), 40)
    assert region.box == (slice(20, 70), slice(10, 110))
    assert not region.resized


def test_sixteen_bits_stay_sixteen() -> None:
    clip, mask = _clip(frames=6)
    deep = clip.astype(np.uint16) * 257
    found, _ = _push_all(Streamer(_adds_nothing(), lookahead=2), deep, mask)
    assert found[0].dtype == np.uint16
    assert np.array_equal(np.stack(found)[mask == 0], deep[mask == 0])


def test_bad_input_is_refused_and_the_stream_goes_on() -> None:
    clip, mask = _clip(frames=4)
    inpainter = _adds_nothing(propagate="off")
    with pytest.raises(InputError, match=re.escape("lookahead: expected 0 frames or more, got -1")):
        Streamer(inpainter, lookahead=-1)
    with pytest.raises(InputError, match="area: expected a part of the frame, which is 64 x 48"):
        Streamer(inpainter, area=(60, 0, 10, 10)).push(clip[0], mask[0])
    with pytest.raises(InputError, match="thickness: expected at least 1 pixel, got 0"):
        Streamer(inpainter, thickness=0).push(clip[0], mask[0])
    with pytest.raises(InputError, match="got a hole that covers every pixel"):
        Streamer(inpainter, mask=np.ones((48, 64), np.uint8))
    with pytest.raises(InputError, match="thickness: expected none beside a mask"):
        Streamer(inpainter, mask=mask[0], thickness=10)
    streamer = Streamer(inpainter, lookahead=0)
    with pytest.raises(InputError, match="mask: expected one with the frame or of the streamer"):
        streamer.push(clip[0])
    streamer.push(clip[0], mask[0])
    for frame, hole, message in (
        (clip[0, :20], mask[0, :20], "flush before frames of another size"),
        (clip[0].astype(np.uint16), mask[0], "flush before frames of another size"),
        (clip[0], mask[0, :20], re.escape("mask: expected the frame's (48, 64), got (20, 64)")),
        (clip[0], mask[0].astype(float), "mask: expected uint8 or bool"),
        (clip[0].astype(float), mask[0], "frame: expected uint8 or uint16"),
        (clip[0].tolist(), mask[0], "frame: expected a NumPy array, got list"),
    ):
        with pytest.raises(InputError, match=message):
            streamer.push(frame, hole)
    assert len(streamer.push(clip[1], mask[1])) == 1
    strided = Inpainter(VideoInpainter(InpainterConfig(temporal_stride=True, width=0.125)))
    with pytest.raises(InputError, match="expected a 3DCN without strides over frames"):
        Streamer(strided)


def test_what_is_kept_does_not_grow_with_the_stream() -> None:
    clip, mask = _clip(frames=200, height=32, width=48)
    streamer = Streamer(_adds_nothing(), lookahead=3)
    kept = []
    for frame, hole in zip(clip, mask, strict=True):
        streamer.push(frame, hole)
        shot = streamer._shot
        assert shot is not None
        assert shot._carrying is not None
        kept.append(len(shot._carrying._tracks[0]._views) + len(shot._waiting))
    assert max(kept[100:]) == kept[100]
