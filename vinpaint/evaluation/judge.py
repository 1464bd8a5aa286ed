# SPDX-License-Identifier: Apache-2.0
"""Scores fills, with what can be computed once shared: networks over all clips, optical flow over a clip's fills."""

from __future__ import annotations

import warnings
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vinpaint.errors import InputError, InputWarning
from vinpaint.evaluation.cache import cached, digest
from vinpaint.evaluation.conditions import MOTIONS, SEEN, Condition, condition_of
from vinpaint.evaluation.data import Frames, Hole
from vinpaint.evaluation.flow import TruthFlow
from vinpaint.evaluation.metrics import METRICS, measure
from vinpaint.evaluation.perceptual import LPIPS, SMALLEST
from vinpaint.evaluation.video_distance import WINDOW, Features, VideoFeatures, frechet_distance
from vinpaint.info import version


class Judgement(NamedTuple):
    """The scores of a fill by the names of the metrics, and its (windows, 1024) features for VFID."""

    scores: dict[str, float]
    features: Features


class Judge:
    """What scores need beside the frames.

    Args:
        device: where LPIPS and I3D run.
        perceptual: ``False`` leaves LPIPS and VFID out; so does a missing package, with a warning.
    """

    def __init__(self, device: torch.device, *, perceptual: bool) -> None:
        self.lpips: LPIPS | None = None
        self.video: VideoFeatures | None = None
        if not perceptual:
            return
        try:
            self.lpips = LPIPS().to(device)
            self.video = VideoFeatures(device)
        except InputError as error:
            warnings.warn(f"a score is left out: {error}", InputWarning, stacklevel=3)


class ClipJudge:
    """Scores the fills of one clip.

    Args:
        judge: what all clips share.
        truth: the clip, uint8 (F, H, W, 3).
    """

    def __init__(self, judge: Judge, truth: Frames) -> None:
        self.truth = truth
        self._lpips = judge.lpips if min(truth.shape[1:3]) >= SMALLEST else None
        self._video = judge.video if len(truth) >= WINDOW else None
        networks = (self._lpips is not None, self._video is not None)
        self._basis = digest(truth, version(), str(METRICS), str(networks))

    @cached_property
    def _flows(self) -> TruthFlow | None:
        return TruthFlow(self.truth) if len(self.truth) > 1 else None

    def __call__(self, filled: Frames, hole: Hole, path: Path) -> Judgement:
        """Judge a fill, or read what was kept in ``path`` of the same one."""

        def judge() -> dict[str, object]:
            scores = measure(filled, self.truth, hole, perceptual=self._lpips, flows=self._flows)
            return {
                "names": list(scores),
                "values": list(scores.values()),
                "features": self._features(filled),
            }

        kept = cached(path, digest(filled, hole, self._basis), judge)
        scores = dict(zip(kept["names"].tolist(), kept["values"].tolist(), strict=True))
        return Judgement(scores, kept["features"])

    def condition(self, hole: Hole, path: Path) -> Condition:
        """What a hole in the clip is like, or what was kept of it in ``path``."""
        look = lambda: asdict(condition_of(self._flows, hole))
        kept = cached(path, digest(hole, self._basis, str(MOTIONS), str(SEEN)), look)
        return Condition(**{part.name: kept[part.name].item() for part in fields(Condition)})

    def features(self, path: Path) -> Features:
        """The truth's own features for VFID, or what was kept of them in ``path``; empty without VFID."""
        make = lambda: {"features": self._features(self.truth)}
        return cached(path, self._basis, make)["features"]

    def _features(self, frames: Frames) -> Features:
        return np.zeros((0, 0)) if self._video is None else self._video(frames)


def set_scores(filled: dict[str, Features], truth: dict[str, Features]) -> dict[str, float]:
    """The scores of a method's whole set, from the features of its clips by their names: VFID.

    None where a clip is missing, or where there are fewer than two windows in all.
    """
    names = [name for name, features in truth.items() if features.size]
    if any(name not in filled for name in names) or sum(len(truth[n]) for n in names) < 2:
        return {}
    sets = [np.concatenate([features[name] for name in names]) for features in (filled, truth)]
    return {"vfid": frechet_distance(sets[0], sets[1])}
