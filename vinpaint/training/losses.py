# SPDX-License-Identifier: Apache-2.0
"""What training minimises: the paper's two losses inside the hole, and what may be added to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vinpaint import ops
from vinpaint.errors import InputError
from vinpaint.training.discriminator import Discriminator, fooling_loss, telling_loss

MARGIN = 8
"""Known pixels around the hole that the added terms see, at least, but for the frame's edge."""

GRAIN = 16
"""Sides of what they see are multiples of this, so that few sizes occur; VGG16 halves four times."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; the paper's loss by default.

    3DCN's l1 has the weight 1. A term of weight 0 is not computed. All but the two l1 judge CombCN's
    frames, so they take no part in a stage without CombCN. The l1, gradient, temporal and frequency
    terms are in pixel values of 0..255.

    Attributes:
        comb_weight: of CombCN's l1; the paper's is 1.
        perceptual: of :func:`perceptual_l1`, on VGG16.
        style: of :func:`style_l1`, on VGG16.
        gradient: of :func:`gradient_l1`.
        frequency: of :func:`frequency_l1`.
        temporal: of :func:`temporal_l1`.
        adversarial: of the verdict of a :class:`~vinpaint.training.discriminator.Discriminator`.
        adversarial_learning_rate: the discriminator's.

    Raises:
        InputError: a value is negative or not finite.
    """

    comb_weight: float = 1.0
    perceptual: float = 0.0
    style: float = 0.0
    gradient: float = 0.0
    frequency: float = 0.0
    temporal: float = 0.0
    adversarial: float = 0.0
    adversarial_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be a finite number of at least 0, got {value!r}")

    @property
    def frames_needed(self) -> int:
        """Neighbouring frames that the terms compare; 1 if each frame is judged by itself."""
        return 3 if self.adversarial else 2 if self.temporal else 1


def check(config: LossConfig, *, frames: int, size: int, comb_frames: int | None) -> None:
    """Whether the terms can be computed on the clips of a stage that trains CombCN.

    Args:
        config: the terms' weights.
        frames: frames a clip.
        size: height and width of a clip.
        comb_frames: how many of them CombCN trains on; ``None``: all.

    Raises:
        InputError: too few frames to compare, or frames too small for VGG16.
    """
    count = frames if comb_frames is None else min(frames, comb_frames)
    if count < config.frames_needed:
        term = "adversarial" if config.adversarial else "temporal"
        name = "frames" if comb_frames is None else "comb_frames"
        raise InputError(
            f"{name} must be at least {config.frames_needed} with the {term} loss, which compares "
            f"neighbouring frames, got {count}"
        )
    if (config.perceptual or config.style) and size < GRAIN:
        raise InputError(
            f"size must be at least {GRAIN} with the perceptual and style losses, got {size}"
        )


def choose_frames(config: LossConfig, count: int, wanted: int | None, step: int) -> Tensor:
    """The frames of a clip that CombCN trains on in one step.

    Evenly spread ones differ most, so they teach most; but where a term compares neighbours they are a
    run of neighbours, which begins one frame later each step.

    Args:
        config: the terms' weights.
        count: frames of the clip.
        wanted: how many of them; ``None``: all.
        step: number of the step.

    Returns:
        Their indices (wanted,), int64, ascending.
    """
    if wanted is None or wanted >= count:
        return torch.arange(count)
    if config.frames_needed > 1:
        return torch.arange(wanted) + step % (count - wanted + 1)
    return torch.linspace(0, count - 1, wanted).round().long()


class Output(NamedTuple):
    """What the networks gave in one step, and what they should have given.

    Attributes:
        coarse: 3DCN's frames (N, 3, F, h, w); ``None`` if there is no 3DCN.
        small: the true frames of ``coarse``, as ``reduce_clip`` gives them.
        small_mask: (N, 1, F, h, w), 1 in the hole and 0 elsewhere.
        completed: CombCN's frames (N, 3, G, H, W), not composited; ``None`` in a stage without CombCN.
        frames: the true frames of ``completed``; the same G frames, see :func:`choose_frames`.
        mask: (N, 1, G, H, W), 1 in the hole and 0 elsewhere.
    """

    coarse: Tensor | None
    small: Tensor
    small_mask: Tensor
    completed: Tensor | None
    frames: Tensor
    mask: Tensor


class Objective(nn.Module):
    """The loss of one step.

    All arithmetic is float32; under autocast VGG16 alone runs in autocast's dtype. A clip without a
    hole gives 0 and no gradient. No term gives a gradient to a known pixel.

    Example::

        objective = Objective(LossConfig(), device)
        total, parts = objective(output)
        total.backward()

    With ``adversarial`` the discriminator learns beside the networks, by an optimiser of its own over
    :meth:`trainable`, from :meth:`discriminator_loss`. It is all that ``state_dict`` holds.

    Args:
        config: the terms' weights.
        device: where the outputs will be.
        features: of the perceptual and style terms: from images (B, 3, H, W) in [0, 1] to a list of
            feature maps (B, C, h, w); ``None``: VGG16.

    Raises:
        InputError: VGG16 is needed and its weights are not installed.
    """

    def __init__(
        self,
        config: LossConfig,
        device: torch.device,
        features: Callable[[Tensor], Sequence[Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.discriminator = Discriminator().to(device) if config.adversarial else None
        if features is None and (config.perceptual or config.style):
            from vinpaint.features import load_vgg16

            features = load_vgg16().to(device)
        # A module in a tuple is not registered: a checkpoint shall not carry VGG16.
        self._features = (features,)

    def forward(self, output: Output) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms, float32, and each term by name, unweighted and detached.

        ``l1_3dcn`` and ``l1_combcn`` are :func:`vinpaint.ops.masked_l1` times 255: 3DCN's averaged over
        clips, CombCN's over frames. The others are named like their weights. What is ``None`` in the
        output has no term.
        """
        terms = {}
        if output.coarse is not None:
            l1 = ops.masked_l1(output.coarse.float(), output.small, output.small_mask)
            terms["l1_3dcn"] = 255 * l1
        if output.completed is not None:
            completed = output.completed.float()
            l1 = ops.masked_l1(completed, output.frames, output.mask, per_frame=True)
            terms["l1_combcn"] = 255 * l1
            terms.update(self._added_terms(completed, output.frames, output.mask))
        weights = {**asdict(self.config), "l1_3dcn": 1.0, "l1_combcn": self.config.comb_weight}
        total = torch.zeros((), device=output.frames.device)
        for name, term in terms.items():
            total = total + weights[name] * term
        return total, {name: term.detach() for name, term in terms.items()}

    def trainable(self) -> list[nn.Parameter]:
        """The discriminator's parameters; empty without one."""
        return list(self.parameters())

    def discriminator_loss(self, output: Output) -> Tensor | None:
        """How ill the discriminator tells filmed from filled clips: a hinge loss, averaged over clips.

        The networks get no gradient from it. ``None`` without a discriminator or without CombCN.
        """
        if self.discriminator is None or output.completed is None:
            return None
        completed = output.completed.detach().float()
        filled, truth, mask = composited_windows(completed, output.frames, output.mask)
        verdicts = self.discriminator(torch.cat([truth, filled]), torch.cat([mask, mask]))
        return (telling_loss(*verdicts.chunk(2)) * _has_hole(mask)).mean()

    def _added_terms(self, completed: Tensor, frames: Tensor, mask: Tensor) -> dict[str, Tensor]:
        config = self.config
        names = ("perceptual", "style", "gradient", "frequency", "temporal", "adversarial")
        terms: dict[str, Tensor] = {}
        if not any(getattr(config, name) for name in names):
            return terms
        filled, truth, mask = composited_windows(completed, frames, mask)
        if config.perceptual or config.style:
            with torch.no_grad():
                truth_features = self._features_of(truth)
            filled_features = self._features_of(filled)
            if config.perceptual:
                terms["perceptual"] = perceptual_l1(filled_features, truth_features)
            if config.style:
                terms["style"] = style_l1(filled_features, truth_features)
        if config.gradient:
            terms["gradient"] = gradient_l1(filled, truth, mask)
        if config.frequency:
            terms["frequency"] = frequency_l1(filled, truth)
        if config.temporal:
            terms["temporal"] = temporal_l1(filled, truth, mask)
        if self.discriminator is not None:
            # The discriminator judges here and learns elsewhere: its parameters get no gradient.
            frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
            verdicts = functional_call(self.discriminator, frozen, (filled, mask))
            terms["adversarial"] = (fooling_loss(verdicts) * _has_hole(mask)).mean()
        return terms

    def _features_of(self, clip: Tensor) -> list[Tensor]:
        """Of all frames as images, float32."""
        (features,) = self._features
        assert features is not None
        return [stage.float() for stage in features(clip.transpose(1, 2).flatten(0, 1))]


# --- terms ----------------------------------------------------------------------------------------
# ``filled`` and ``truth`` are float32 clips (N, 3, F, H, W) in [0, 1] that differ inside the hole only,
# ``mask`` is (N, 1, F, H, W), 1 in the hole and 0 elsewhere.


def perceptual_l1(filled: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """``sum over stages of mean(|filled - truth|)``, of feature maps (B, C, h, w) of composited frames."""
    return torch.stack([(a - b).abs().mean() for a, b in zip(filled, truth, strict=True)]).sum()


def style_l1(filled: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """``sum over stages of mean(|gram(filled) - gram(truth)|)``, of feature maps (B, C, h, w).

    ``gram(x) = x @ x.T / (C h w)`` with ``x`` as (C, h w), image by image: which features occur together,
    wherever they are.
    """

    def gram(x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return flat @ flat.mT / (flat.shape[1] * flat.shape[2])

    with torch.autocast(filled[0].device.type, enabled=False):
        grams = [(gram(a), gram(b)) for a, b in zip(filled, truth, strict=True)]
    return torch.stack([(a - b).abs().mean() for a, b in grams]).sum()


def gradient_l1(filled: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """``255 / 2 * sum over x, y of mean(|d filled - d truth|)``, d the difference of two neighbours.

    The mean is that of :func:`vinpaint.ops.masked_l1` by frame, over the pairs of which at least one
    pixel is in the hole.
    """
    along = (_difference_l1(filled, truth, mask, axis) for axis in (3, 4))
    return 255 / 2 * sum(along, torch.zeros((), device=filled.device))


def temporal_l1(filled: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """``255 * mean(|d filled - d truth|)``, d the difference of a pixel from one frame to the next.

    The mean is that of :func:`vinpaint.ops.masked_l1` by pair of frames, over the pixels that are in the
    hole of at least one of the two. No flow: what flickers in the truth shall do so in the filled clip.
    """
    return 255 * _difference_l1(filled, truth, mask, 2)


def frequency_l1(filled: Tensor, truth: Tensor) -> Tensor:
    """``255 * mean(||fft(filled)| - |fft(truth)||)``, fft the orthonormal one over height and width.

    Amplitudes alone: as much detail as in the truth, though not at its place, for which there is the
    l1. No frequency has a weight of its own. The mean is over all frequencies of composited frames, so it
    grows with the hole's share of them.
    """

    def amplitude(clip: Tensor) -> Tensor:
        return torch.fft.rfft2(clip, norm="ortho").abs()

    return 255 * (amplitude(filled) - amplitude(truth)).abs().mean()


def _difference_l1(filled: Tensor, truth: Tensor, mask: Tensor, axis: int) -> Tensor:
    count = mask.shape[axis] - 1
    before, after = mask.narrow(axis, 0, count), mask.narrow(axis, 1, count)
    pairs = torch.maximum(before, after)
    return ops.masked_l1(filled.diff(dim=axis), truth.diff(dim=axis), pairs, per_frame=True)


# --- what the added terms see ---------------------------------------------------------------------


def composited_windows(
    completed: Tensor, frames: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The surroundings of each clip's hole, as small as they can be and of one size.

    Args:
        completed: (N, 3, F, H, W), float32; outside the hole it is not looked at.
        frames: the truth, alike.
        mask: (N, 1, F, H, W), 1 in the hole and 0 elsewhere.

    Returns:
        ``(filled, truth, mask)``, of height and width H', W': ``completed`` inside the hole and the truth
        outside, the truth, and the mask. The window of a clip is the same in all its frames, and holds the
        hole of every frame with :data:`MARGIN` pixels around it, or ends where the frame ends. Sides are
        multiples of :data:`GRAIN`, or the frame's.
    """
    holes = mask.amax((1, 2)) > 0
    (tops, height), (lefts, width) = (_windows(holes.any(axis).tolist()) for axis in (2, 1))

    def cut(clips: Tensor) -> Tensor:
        places = zip(clips, tops, lefts, strict=True)
        return torch.stack([c[..., y : y + height, x : x + width] for c, y, x in places])

    mask, truth = cut(mask), cut(frames)
    return torch.where(mask > 0, cut(completed), truth), truth, mask


def _windows(holes: list[list[bool]]) -> tuple[list[int], int]:
    """First index of each clip's window along one axis, and the windows' side."""
    size = len(holes[0])
    spans = [[i for i, hole in enumerate(line) if hole] or [0] for line in holes]
    longest = max(span[-1] - span[0] + 1 for span in spans)
    side = min(size, -(-(longest + 2 * MARGIN) // GRAIN) * GRAIN)
    return [min(max(span[0] - MARGIN, 0), size - side) for span in spans], side


def _has_hole(mask: Tensor) -> Tensor:
    """By clip (N,): 1 if any pixel is in a hole, else 0."""
    return (mask.flatten(1).amax(1) > 0).float()
