# SPDX-License-Identifier: Apache-2.0
"""The networks: the paper's table, layer by layer; the joint forward; folding; the temporal halo."""

from __future__ import annotations

import re

import pytest
import torch
from models import random_model
from torch import Tensor, nn

from vinpaint.nn import CombCN, CompletionNet3d, InpainterConfig, VideoInpainter, fold_batch_norm
from vinpaint.nn.inpainter import reduce_clip
from vinpaint.nn.layers import Conv, ConvBNReLU
from vinpaint.nn.prefill import harmonic_fill

# name: (kernel, spatial stride, out channels, spatial dilation, in channels), as the paper prints them.
TABLE_3DCN = {
    "conv1": ((5, 5, 5), 1, 16, 1, 4),
    "conv2": ((3, 3, 3), 2, 32, 1, 16),
    "conv3": ((3, 3, 3), 1, 64, 1, 32),
    "conv4": ((3, 3, 3), 2, 128, 1, 64),
    "conv5": ((3, 3, 3), 1, 256, 2, 128),
    "conv6": ((3, 3, 3), 1, 256, 4, 256),
    "conv7": ((3, 3, 3), 1, 256, 8, 256),
    "conv8": ((3, 3, 3), 1, 128, 1, 256),
    "deconv9": ((3, 4, 4), 2, 64, 1, 256),
    "conv10": ((3, 3, 3), 1, 32, 1, 128),
    "deconv11": ((3, 4, 4), 2, 16, 1, 64),
    "conv12": ((3, 3, 3), 1, 3, 1, 16),
}
TABLE_COMBCN = {
    "conv1": ((1, 5, 5), 1, 64, 1, 4),
    "conv2": ((1, 3, 3), 2, 128, 1, 64),
    "conv3": ((1, 3, 3), 1, 128, 1, 128),
    "conv4": ((1, 3, 3), 2, 256, 1, 128),
    "conv5": ((1, 3, 3), 1, 256, 1, 256),
    "conv6": ((1, 3, 3), 1, 256, 1, 256),
    "conv7": ((1, 3, 3), 1, 256, 2, 256),
    "conv8": ((1, 3, 3), 1, 256, 4, 256),
    "conv9": ((1, 3, 3), 1, 256, 8, 256),
    "conv10": ((1, 3, 3), 1, 256, 16, 512),
    "conv11": ((1, 3, 3), 1, 256, 1, 512),
    "conv12": ((1, 3, 3), 1, 256, 1, 512),
    "deconv13": ((1, 4, 4), 2, 128, 1, 512),
    "conv14": ((1, 3, 3), 1, 128, 1, 256),
    "deconv15": ((1, 4, 4), 2, 64, 1, 256),
    "conv16": ((1, 3, 3), 1, 32, 1, 128),
    "conv17": ((1, 3, 3), 1, 3, 1, 32),
    "guide2": ((1, 3, 3), 1, 128, 1, 3),
    "guide14": ((1, 3, 3), 1, 128, 1, 3),
}


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _clip(
    batch: int = 1, frames: int = 4, height: int = 32, width: int = 40
) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    mask = torch.zeros(batch, 1, frames, height, width)
    mask[..., 9:21, 11:26] = 1
    return torch.rand(batch, 3, frames, height, width), mask


@pytest.mark.parametrize(
    ("net", "table", "total"),
    [(CompletionNet3d(), TABLE_3DCN, 6_556_691), (CombCN(), TABLE_COMBCN, 8_667_299)],
    ids=["3DCN", "CombCN"],
)
def test_every_layer_is_the_papers(net: nn.Module, table: dict[str, tuple], total: int) -> None:
    layers = dict(net.named_children())
    assert list(layers) == list(table)
    for name, (kernel, stride, out_channels, dilation, in_channels) in table.items():
        layer = layers[name]
        transposed = name.startswith("deconv")
        channels = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        assert layer.weight.shape == (*channels, *kernel), name
        if isinstance(layer, Conv):
            assert name in ("conv12", "conv17")
            assert _count(layer) == layer.weight.numel() + out_channels, name
            continue
        assert layer.stride == (1, stride, stride), name
        assert layer.dilation == (1, dilation, dilation), name
        assert layer.transposed is transposed, name
        assert _count(layer) == layer.weight.numel() + 2 * out_channels, name
    assert _count(net) == total


@pytest.mark.parametrize(("height", "width"), [(32, 40), (33, 43)])
def test_joint_forward_gives_the_papers_shapes(height: int, width: int) -> None:
    completed, coarse = VideoInpainter()(*_clip(2, 3, height, width))
    assert completed.shape == (2, 3, 3, height, width)
    assert coarse.shape == (2, 3, 3, -(-height // 2), -(-width // 2))


def test_2dcn_has_no_3dcn_and_no_guidance() -> None:
    model = VideoInpainter(InpainterConfig(mode="2dcn"))
    completed, coarse = model(*_clip())
    assert coarse is None
    assert completed.shape == (1, 3, 4, 32, 40)
    assert model.halo == 0
    assert _count(model) == 8_667_299 - 2 * (3 * 128 * 9 + 2 * 128)


def test_strides_over_frames_keep_their_number() -> None:
    model = VideoInpainter(InpainterConfig(temporal_stride=True))
    for frames in (1, 5, 8):
        completed, coarse = model(*_clip(1, frames, 16, 16))
        assert completed.shape == (1, 3, frames, 16, 16)
        assert coarse.shape == (1, 3, frames, 8, 8)
    assert model.completion.conv2.stride == model.completion.deconv9.stride == (2, 2, 2)


def test_frames_out_of_reach_of_a_3dcn_with_strides_change_nothing() -> None:
    torch.manual_seed(5)
    net = CompletionNet3d(width=0.1, temporal_stride=True).eval()
    x = torch.randn(1, 4, 72, 4, 4)
    with torch.no_grad():
        whole = net(x)
        x[:, :, : 36 - net.halo] = x[:, :, 36 + net.halo + 1 :] = 0
        torch.testing.assert_close(net(x)[:, :, 36], whole[:, :, 36])


def test_3dcn_at_a_quarter_guides_combcn_at_half_the_size() -> None:
    model = VideoInpainter(InpainterConfig(reduction=4))
    frames, mask = _clip(1, 2, 32, 48)
    coarse, guidance = model.complete(*reduce_clip(frames, mask, 4))
    assert coarse.shape == (1, 3, 2, 8, 12)
    assert guidance.shape == (1, 3, 2, 16, 24)
    completed, coarse = model(*_clip(1, 2, 33, 43))
    assert completed.shape == (1, 3, 2, 33, 43)
    assert coarse.shape == (1, 3, 2, 9, 11)


def test_a_narrow_model_has_multiples_of_8_channels() -> None:
    model = VideoInpainter(InpainterConfig(width=0.375))
    channels = {len(layer.gamma) for layer in model.modules() if isinstance(layer, ConvBNReLU)}
    assert channels == {8, 16, 24, 48, 96}
    completed, _ = model(*_clip())
    assert completed.shape == (1, 3, 4, 32, 40)


def test_networks_that_start_from_the_smooth_fill_begin_by_leaving_it() -> None:
    frames, mask = _clip()
    model = VideoInpainter(InpainterConfig(prefill="smooth"))
    completed, coarse = model(frames, mask)
    torch.testing.assert_close(completed, harmonic_fill(frames, mask), rtol=0, atol=0)
    torch.testing.assert_close(coarse, harmonic_fill(*reduce_clip(frames, mask)), rtol=0, atol=0)


def test_a_frame_that_is_all_hole_begins_as_the_mean() -> None:
    frames, mask = _clip()
    mask[:, :, 1] = 1
    model = VideoInpainter(InpainterConfig(prefill="smooth", mean=(0.1, 0.2, 0.3)))
    x = model.network_input(frames, mask)
    assert x[0, :3, 1, 5, 7].tolist() == pytest.approx([0.1, 0.2, 0.3])
    torch.testing.assert_close(x[:, :3, 2:], harmonic_fill(frames, mask)[:, :, 2:])


@pytest.mark.parametrize("confidence", [False, True])
def test_networks_that_start_from_what_was_carried_begin_by_leaving_it(confidence: bool) -> None:
    frames, mask = _clip()
    unknown = mask.clone()
    unknown[..., :11, :] *= 0.25  # above row 11 the hole holds carried pixels
    holds = (unknown > 0) & (unknown < 1)
    assert holds.any()
    assert (unknown == 1).any()
    model = VideoInpainter(InpainterConfig(prefill="carried", confidence=confidence))
    completed, coarse = model(frames, unknown)
    empty = (unknown == 1).float()
    torch.testing.assert_close(completed, harmonic_fill(frames, empty), rtol=0, atol=0)
    small, small_unknown = reduce_clip(frames, unknown)
    expected = harmonic_fill(small, (small_unknown == 1).float())
    torch.testing.assert_close(coarse, expected, rtol=0, atol=0)
    x = model.network_input(frames, unknown)
    assert torch.equal(x[:, 3:], unknown if confidence else mask)


def test_only_networks_that_start_from_what_was_carried_complete_it() -> None:
    mask = torch.tensor([0.0, 0.25, 1.0])
    wanted = {"mean": [False, False, True], "carried": [False, True, True]}
    for prefill, expected in wanted.items():
        model = VideoInpainter(InpainterConfig(prefill=prefill, width=0.125))
        assert model.completes(mask).tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "4dcn"}, "mode must be 'combcn' or '2dcn', got '4dcn'"),
        ({"prefill": "telea"}, "prefill must be 'mean', 'smooth' or 'carried', got 'telea'"),
        ({"confidence": True}, "confidence must be False with prefill 'mean'"),
        ({"reduction": 3}, "reduction must be 2 or 4, got 3"),
        ({"width": 0}, "width must lie between 0 and 4, got 0"),
    ],
)
def test_an_option_that_does_not_exist_is_an_error(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        InpainterConfig(**options)


@pytest.mark.parametrize("prefill", ["mean", "carried"])
def test_what_lies_in_the_hole_is_not_looked_at(prefill: str) -> None:
    frames, mask = _clip()
    model = random_model(InpainterConfig(prefill=prefill))
    poisoned = torch.where(mask > 0, torch.full_like(frames, float("nan")), frames)
    # The low-resolution clip averages pixels before it masks them: a hole pixel must not leak there either.
    with torch.no_grad():
        for ours, theirs in zip(model(frames, mask), model(poisoned, mask), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_guidance_is_composited_with_the_known_pixels() -> None:
    frames, mask = _clip()
    small, small_mask = reduce_clip(frames, mask)
    model = VideoInpainter().eval()
    with torch.no_grad():
        coarse, guidance = model.complete(small, small_mask)
        known = (small_mask == 0).expand_as(small)
        assert torch.equal(guidance[known], small[known])
        assert torch.equal(guidance[~known], coarse[~known])
        plain = VideoInpainter(InpainterConfig(composite_guidance=False)).eval()
        assert torch.equal(*plain.complete(small, small_mask))


def test_reduced_mask_is_hole_if_any_pixel_is() -> None:
    frames, mask = torch.rand(1, 3, 1, 4, 4), torch.zeros(1, 1, 1, 4, 4)
    mask[..., 0, 3] = 1
    small, small_mask = reduce_clip(frames, mask)
    assert small_mask.flatten().tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(small[0, :, 0], torch.nn.functional.avg_pool2d(frames[0, :, 0], 2))


def test_folding_changes_nothing_but_rounding() -> None:
    frames, mask = _clip()
    model = random_model()
    with torch.no_grad():
        expected = model(frames, mask)
        fold_batch_norm(model)
        assert not [name for name in model.state_dict() if "gamma" in name or "running" in name]
        for ours, theirs in zip(model(frames, mask), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_training_updates_the_running_statistics_like_torch() -> None:
    layer = CompletionNet3d().conv2.train()
    norm = nn.BatchNorm3d(32)
    x = torch.randn(2, 16, 3, 8, 8)
    layer(x)
    norm(nn.functional.conv3d(x, layer.weight, None, (1, 2, 2), 1))
    torch.testing.assert_close(layer.running_mean, norm.running_mean)
    torch.testing.assert_close(layer.running_var, norm.running_var)


def test_every_parameter_of_both_networks_is_trained() -> None:
    model = VideoInpainter()
    completed, coarse = model(*_clip())
    (completed.square().mean() + coarse.square().mean()).backward()
    assert not [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]


def test_a_frame_sees_thirteen_frames_to_either_side_and_no_more() -> None:
    net = random_model().completion.double()
    x = torch.rand(1, 4, 31, 16, 16, dtype=torch.float64, requires_grad=True)
    net(x)[:, :, 15].sum().backward()
    reached = [f for f in range(31) if x.grad[:, :, f].abs().sum() > 0]
    assert reached == list(range(15 - net.halo, 15 + net.halo + 1))


@pytest.mark.parametrize("batch", [1, 2])
def test_combcn_gives_the_same_frames_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    comb = random_model().comb
    x = torch.rand(batch, 4, 5, 16, 24).contiguous(memory_format=torch.channels_last_3d)
    guidance = torch.rand(batch, 3, 5, 8, 12).contiguous(memory_format=torch.channels_last_3d)
    whole = comb(x, guidance)  # with gradients enabled: in one piece
    monkeypatch.setattr("vinpaint.nn.comb.CACHE_PIXELS", 2 * 16 * 24)
    with torch.no_grad():
        torch.testing.assert_close(comb(x, guidance), whole, rtol=1e-5, atol=1e-5)


def test_autocast_runs_the_networks_in_bfloat16() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        completed, _ = VideoInpainter()(*_clip())
    assert completed.dtype == torch.bfloat16
    assert completed.isfinite().all()


@pytest.mark.parametrize(
    ("frames", "mask", "message"),
    [
        (torch.rand(3, 4, 8, 8), torch.zeros(1, 1, 4, 8, 8), "frames must be"),
        (torch.rand(1, 3, 4, 8, 8), torch.zeros(1, 1, 3, 8, 8), "mask must be"),
        (torch.rand(1, 3, 4, 8, 8), torch.zeros(1, 1, 4, 8, 8).double(), "share a floating dtype"),
        (
            torch.ones(1, 3, 4, 8, 8).byte(),
            torch.zeros(1, 1, 4, 8, 8).byte(),
            "share a floating dtype",
        ),
    ],
)
def test_bad_input_is_named(frames: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoInpainter()(frames, mask)


def test_guidance_must_fit_the_mode() -> None:
    x = torch.rand(1, 4, 1, 8, 8)
    with pytest.raises(ValueError, match="guidance must be given"):
        CombCN()(x)
    with pytest.raises(ValueError, match="guidance must be None"):
        CombCN(guidance=False)(x, torch.rand(1, 3, 1, 4, 4))
    with pytest.raises(ValueError, match="'2dcn'"):
        VideoInpainter(InpainterConfig(mode="3d"))
