# SPDX-License-Identifier: Apache-2.0
"""The paper's tables on footage of one's own: the networks and the ablations, trained alike.

Every row trains the paper's way: 3DCN alone, then the networks that the row is about, with the paper's
loss, hole and mean-filled input. The same stage sees the same samples in every row of a set and a seed,
rows whose 3DCN is the paper's begin with the same one, and all are judged on the same held-out clips. What is done already is not done
again, so a run that was stopped goes on.

    python benchmarks/paper_tables.py --set faces=videos/faces --set streets=videos/streets --runs runs \
        --steps 100000 --size 128 --frames 32 --output benchmarks/results

A set of a few clips is soon learned by heart, by 3DCN first, and what it guides then is worse off than without it.
With ``--footage`` every row is trained once, on all that there is, augmented, and judged on each set's held-out
clips. Names keep these out of the training, so a clip must have the same path below its set's folder as below that of
the footage; otherwise it would be on both sides, which is refused.

On a machine without decoders a folder of shots (``.npy``, from ``travel.py unpack-shots``) takes the place of a folder of
videos. Shots are not cut to their central square: a sample is a square at a random place of them.
``--time-limit 9m`` stops with exit code 75, in the training after a step; the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from vinpaint.devices import resolve_device
from vinpaint.errors import InputError
from vinpaint.evaluation.metrics import measure
from vinpaint.evaluation.perceptual import LPIPS
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.pretrained import load_pretrained
from vinpaint.training import (
    ClipDataset,
    DataConfig,
    LossConfig,
    RunConfig,
    StageConfig,
    Stopped,
    TrainConfig,
    prepare_data,
    train,
)
from vinpaint.training.augment import AugmentConfig
from vinpaint.training.holes import HoleConfig
from vinpaint.training.interruption import TIME_LIMIT, seconds
from vinpaint.training.sources import find_sources

Trained = Literal["completion", "comb", "joint"]

FOOTAGE = "footage"
"""The folder of the runs that are trained on ``--footage``."""

LARGER = 1.5
"""Footage is decoded this much larger than a sample, so that there is something to crop."""


@dataclass(frozen=True)
class Row:
    """What is trained for one row of a table.

    Attributes:
        title: the row's name in the table.
        table: "networks", "paper ablations" (of the paper), or ours: "input" and "added losses".
        paper: the paper's own l1 by set, (3DCN, CombCN), for the column beside ours.
        stages: networks trained, one stage after the other.
        model: options of the networks.
        losses: weights of the terms.
        start: the row whose weights it begins with, of the same set and seed.
        share: of the study's steps that each of its stages takes.
    """

    title: str
    table: str
    stages: tuple[Trained, ...]
    model: InpainterConfig = field(default_factory=InpainterConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    start: str | None = None
    share: float = 1.0
    paper: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)


def _added(title: str, **weights: float) -> Row:
    """A quarter more steps of the trained CombCN, with another loss added."""
    losses = LossConfig(**weights)
    return Row(title, "added losses", ("joint",), losses=losses, start="combcn", share=0.25)


ROWS = {
    "3dcn": Row(
        "3DCN", "networks", ("completion",), paper={"faces": (7.18, None), "streets": (11.91, None)}
    ),
    "2dcn": Row(
        "2DCN",
        "networks",
        ("joint",),
        InpainterConfig(mode="2dcn"),
        paper={"faces": (None, 6.77), "streets": (None, 11.16)},
    ),
    "combcn": Row(
        "CombCN",
        "networks",
        ("joint",),
        start="3dcn",
        paper={"faces": (4.45, 6.27), "streets": (None, 9.56)},
    ),
    "quarter": Row(
        "3DCN at a quarter (r = 4)",
        "paper ablations",
        ("completion", "joint"),
        InpainterConfig(reduction=4),
        paper={"faces": (9.51, 6.39)},
    ),
    "strided": Row(
        "3DCN strided in time",
        "paper ablations",
        ("completion", "joint"),
        InpainterConfig(temporal_stride=True),
        paper={"faces": (11.56, 8.13)},
    ),
    "frozen": Row(
        "3DCN frozen",
        "paper ablations",
        ("comb",),
        start="3dcn",
        paper={"faces": (6.30, 5.18)},
    ),
    "scratch": Row(
        "joint from scratch",
        "paper ablations",
        ("joint",),
        paper={"faces": (9.28, 6.31)},
    ),
    "smooth": Row(
        "CombCN, smooth fill in the hole",
        "input",
        ("completion", "joint"),
        InpainterConfig(prefill="smooth"),
    ),
    "smooth-2dcn": Row(
        "2DCN, smooth fill in the hole",
        "input",
        ("joint",),
        InpainterConfig(mode="2dcn", prefill="smooth"),
    ),
    "plain": _added("none"),
    "gradient": _added("gradient l1, weight 0.5", gradient=0.5),
    "frequency": _added("frequency l1, weight 0.5", frequency=0.5),
    "temporal": _added("temporal l1, weight 2", temporal=2.0),
    "perceptual": _added("perceptual, weight 5", perceptual=5.0),
    "style": _added("style, weight 200", style=200.0),
    "adversarial": _added("adversarial, weight 1", adversarial=1.0),
}
"""The paper's ablations are of 300VW, faces too; its networks' table is of FaceForensics and Caltech."""

Scores = dict[str, float]


@dataclass(frozen=True)
class Study:
    """What all rows have in common.

    Attributes:
        footage, photos: what every row is trained on; without any each set's own clips, plainly sampled.
        held_out: share of the clips that rows are judged on; their names say which.
        width: share of the paper's channels.
        ends: when to stop, by ``time.monotonic()``.
    """

    runs: Path
    sets: dict[str, tuple[str, ...]]
    footage: tuple[str, ...]
    photos: tuple[str, ...]
    held_out: float
    width: float
    steps: int
    batch: int
    frames: int
    size: int
    comb_frames: int | None
    learning_rate: float
    precision: Literal["fp32", "bf16"]
    device: str
    clips: int
    ends: float = math.inf

    def judged_data(self, name: str) -> DataConfig:
        """The paper's samples: one box, consecutive frames, the central square (of videos), nothing augmented."""
        data = DataConfig(
            cache=str(self.runs / name / "shots"),
            folders=self.sets[name],
            short_side=self.size,
            crop="center-square",
            validation_share=self.held_out,
            augment=AugmentConfig(enabled=False),
            holes=HoleConfig(shares={"box": 1.0}),
        )
        return _as_shots(data)

    def trained_data(self, name: str) -> DataConfig:
        """What a row is trained on for the set ``name``: all footage, augmented, or else the set's own."""
        if not self.footage:
            return self.judged_data(name)
        data = replace(
            self.judged_data(name),
            cache=str(self.runs / FOOTAGE / "shots"),
            folders=self.footage,
            photos=self.photos,
            short_side=round(LARGER * self.size),
            crop="none",
            augment=AugmentConfig(scale=(1.0, LARGER)),
        )
        return _as_shots(data)

    def trained(self, name: str, row: str, seed: int) -> Path:
        """The folder of a row's runs: with ``footage`` one for all sets."""
        return self.runs / (FOOTAGE if self.footage else name) / f"{row}-seed{seed}"

    def weights(self, name: str, row: str, seed: int) -> Path:
        """Of a row that is done: those of its last stage."""
        return self.trained(name, row, seed) / ROWS[row].stages[-1] / "weights"

    def judged(self, name: str) -> ClipDataset:
        """The held-out samples of a set."""
        return self._samples(self.judged_data(name), "validation")

    def _samples(self, data: DataConfig, split: Literal["train", "validation"]) -> ClipDataset:
        size = {"frames": self.frames, "size": self.size}
        return ClipDataset(data, **size, stop=self.clips, split=split)

    def check_time(self) -> None:
        """Raise Stopped when the time is up."""
        if time.monotonic() >= self.ends:
            raise Stopped(TIME_LIMIT, 0)

    def prepare(self) -> None:
        """Decode all footage, and find out before the first row what is wrong with it.

        Raises:
            InputError: a set without held-out clips, or with some that would be trained on.
        """
        everything = [self.judged_data(name) for name in self.sets]
        if self.footage:
            everything.append(self.trained_data(next(iter(self.sets))))
        for data in everything:
            prepare_data(data, progress=lambda *_: self.check_time())
        for name in self.sets:
            held_out = _files(self.judged(name))
            both = sorted(
                map(str, held_out & _files(self._samples(self.trained_data(name), "train")))
            )
            if both:
                raise InputError(
                    f"--footage: {both[0]} of the set {name} is held out there and trained on here; "
                    "give it the same path below both folders"
                )

    def facts(self, name: str) -> dict[str, Any]:
        """What scores of a set depend on, beside the row."""
        apart = ("runs", "sets", "device", "ends", "footage", "photos")
        facts = {key: value for key, value in asdict(self).items() if key not in apart}
        return facts | self._clips_of[name]

    @cached_property
    def _clips_of(self) -> dict[str, dict[str, str]]:
        """What tells the clips of each set apart from others; looked for once, when all are decoded."""
        return {
            name: {
                "footage": _identity(self._samples(self.trained_data(name), "train")),
                "held_out_clips": _identity(self.judged(name)),
            }
            for name in self.sets
        }

    def train_row(self, name: str, row: str, seed: int) -> Scores:
        """Train one row unless it is done, and its scores on the held-out clips."""
        folder, what = self.trained(name, row, seed), ROWS[row]
        scores = folder / f"scores-{name}.json"
        if scores.exists():
            done: dict[str, Any] = json.loads(scores.read_text())
            if done["study"] != self.facts(name):
                raise SystemExit(
                    f"{scores} is of other options: {done['study']}; use another --runs"
                )
            return dict(done["scores"])
        start = None
        if what.start is not None:
            self.train_row(name, what.start, seed)
            start = self.weights(name, what.start, seed)
        for networks in what.stages:
            self.train_stage(name, what, networks, seed, folder / networks, start)
            start = folder / networks / "weights"
        model = load_pretrained(self.weights(name, row, seed)).to(resolve_device(self.device))
        result = self.judge(model, name, alone=what.stages == ("completion",))
        facts = {"study": self.facts(name), "scores": result}
        scores.write_text(json.dumps(facts, indent=2) + "\n")
        return result

    def train_stage(
        self, name: str, what: Row, networks: Trained, seed: int, output: Path, start: Path | None
    ) -> None:
        """Each stage is a run of its own: its samples and its optimiser begin anew, in every row."""
        stage = StageConfig(
            networks=networks,
            steps=max(1, round(what.share * self.steps)),
            batch=self.batch,
            frames=self.frames,
            size=self.size,
            comb_frames=self.comb_frames,
            learning_rate=self.learning_rate,
            schedule="cosine",
        )
        left = self.ends - time.monotonic()
        config = TrainConfig(
            data=self.trained_data(name),
            model=replace(what.model, width=self.width),
            losses=what.losses,
            run=RunConfig(
                output=str(output),
                init=None if start is None else str(start),
                seed=seed,
                device=self.device,
                precision=self.precision,
                ema=0.0,
                workers=0,
                validate_every=0,
                time_limit=None if math.isinf(left) else f"{max(left, 1e-3):.3f}s",
            ),
            stages=(stage,),
        )
        train(config)

    @torch.inference_mode()
    def judge(self, model: VideoInpainter, name: str, *, alone: bool) -> Scores:
        """l1 of 3DCN (brought to full size) and CombCN, and CombCN's further scores; means over the clips."""
        clips = self.judged(name)
        device = next(model.parameters()).device
        perceptual = LPIPS("alex")
        rows: list[Scores] = []
        for frames, hole in clips:
            self.check_time()
            truth, mask = frames.permute(1, 2, 3, 0).numpy(), hole[0].numpy()
            completed, coarse = model(
                frames[None].to(device) / 255, hole[None].to(device, torch.float32)
            )
            row: Scores = {}
            if coarse is not None:
                large = F.interpolate(coarse, truth.shape[:3], mode="trilinear")
                filled = _composited(large, truth, mask)
                row["l1_3dcn"] = float(np.abs(filled[mask] - truth[mask].astype(float)).mean())
            if not alone:
                filled = _composited(completed, truth, mask)
                row.update(measure(filled, truth, mask, perceptual=perceptual, flows=None))
            rows.append(row)
        return {key: mean(row[key] for row in rows) for key in rows[0]}


def _as_shots(data: DataConfig) -> DataConfig:
    """Where the footage is a folder of shots: these, as they are."""
    if not any([*Path(folder).glob("*.npy")] for folder in data.folders):
        return data
    if len(data.folders) > 1 or data.photos:
        raise InputError(
            "--set, --footage: expected a folder of shots alone, got more folders or photographs beside it; "
            "pack all footage into one folder of shots"
        )
    return replace(data, cache=data.folders[0], folders=(), crop="none")


def _files(samples: ClipDataset) -> set[Path | str]:
    """The files or folders of the clips that samples are drawn from; their names if they were decoded elsewhere."""
    data = samples.config
    sources = find_sources(data.folders, data.photos)[0] if data.folders or data.photos else []
    files = {source.name: source.path.resolve() for source in sources}
    return {files.get(shot.source, shot.source) for shot in samples.shots}


def _identity(samples: ClipDataset) -> str:
    """Another one for other clips, or for the same cut or scaled otherwise."""
    facts = sorted((shot.source, shot.frames, shot.height, shot.width) for shot in samples.shots)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _composited(output: torch.Tensor, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    pixels = (output[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).cpu().numpy()
    return np.where(mask[..., None], pixels, truth)


Results = dict[str, dict[str, list[Scores]]]
"""By set and row, one entry a seed."""


def run(
    study: Study,
    seeds: dict[str, int],
    rows: Sequence[str],
    keep: Callable[[Results], None] = lambda _: None,
) -> Results:
    """All rows of all sets; ``seeds`` says how many of each table. ``keep`` is given what is done, after each row."""
    study.prepare()
    results: Results = {}
    for seed in range(max(seeds.values())):
        for row in rows:
            for name in study.sets:
                if seed >= seeds[ROWS[row].table] or not _wanted(name, row, study):
                    continue
                scores = study.train_row(name, row, seed)
                results.setdefault(name, {}).setdefault(row, []).append(scores)
                print(f"{name}, {ROWS[row].title}, seed {seed}: {scores}", flush=True)
                keep(results)
    return results


def _wanted(name: str, row: str, study: Study) -> bool:
    """The tables "networks" and "input" are of every set, the ablations of the first, as in the paper."""
    return ROWS[row].table in ("networks", "input") or name == next(iter(study.sets))


COLUMNS = {
    "l1_3dcn": "3DCN l1",
    "l1": "CombCN l1",
    "psnr_hole": "PSNR in the hole",
    "lpips": "LPIPS",
    "flicker": "flicker",
}


def to_markdown(results: Results, study: Study) -> str:
    """The tables, the paper's figures beside ours."""
    clips = f"{study.frames} frames of {study.size} x {study.size}"
    footage = "all footage, augmented; " if study.footage else "each set's own clips; "
    width = "" if study.width == 1 else f"{study.width:g} of the paper's channels; "
    conditions = (
        f"Trained on {footage}{width}{study.steps} steps a stage of {study.batch} clips of {clips}; CombCN on "
        f"{study.comb_frames or 'all'} frames of each; Adam {study.learning_rate:g}, falling to 0 by a cosine; "
        f"{study.precision}; the paper's box; mean of {study.clips} held-out samples; ± is the standard deviation over seeds. "
        "l1 is 0..255 inside the hole at full size, 3DCN's brought there by trilinear interpolation."
    )
    lines = ["# The paper's tables on our footage", "", conditions]
    for name, rows in results.items():
        for table in dict.fromkeys(ROWS[row].table for row in rows):
            lines += ["", f"## {name}: {table}", ""]
            lines += [f"| | seeds | {' | '.join(COLUMNS.values())} | paper: 3DCN | paper: CombCN |"]
            lines += ["|---" * (len(COLUMNS) + 4) + "|"]
            shown = [row for row in rows if ROWS[row].table == table]
            if table != "networks":
                shown = [*(["2dcn"] if table == "input" else []), "combcn", *shown]
            lines += [_line(ROWS[row], rows[row], name) for row in shown if row in rows]
    return "\n".join(lines) + "\n"


def _line(row: Row, runs: list[Scores], name: str) -> str:
    cells = [_spread([run[key] for run in runs if key in run], key) for key in COLUMNS]
    paper = [f"{v:.2f}" if v is not None else "" for v in row.paper.get(name, (None, None))]
    return f"| {row.title} | {len(runs)} | {' | '.join(cells)} | {' | '.join(paper)} |"


def _spread(values: list[float], key: str) -> str:
    if not values:
        return ""
    digits = 3 if key == "lpips" else 2
    shown = f"{mean(values):.{digits}f}"
    return shown + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def plot(results: Results, path: Path) -> None:
    """Bars of the l1 of every row, dots the seeds."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(results), figsize=(6 * len(results), 5), squeeze=False, layout="constrained"
    )
    for axis, (name, rows) in zip(axes[0], results.items(), strict=True):
        titles = [ROWS[row].title for row in rows]
        for shift, key, color in ((-0.2, "l1_3dcn", "tab:gray"), (0.2, "l1", "tab:blue")):
            for place, runs in enumerate(rows.values()):
                values = [run[key] for run in runs if key in run]
                if values:
                    axis.barh(place + shift, mean(values), 0.38, color=color)
                    axis.plot(values, [place + shift] * len(values), "k.", markersize=4)
        axis.set_yticks(range(len(titles)), titles)
        axis.invert_yaxis()
        axis.set_xlabel("l1 in the hole, 0..255\n(grey: 3DCN, blue: CombCN or 2DCN; dots: seeds)")
        axis.set_title(name)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_tables(output: Path, study: Study, results: Results) -> None:
    """``paper-tables`` as JSON, Markdown and a picture."""
    output.mkdir(parents=True, exist_ok=True)
    facts = {"study": {name: study.facts(name) for name in results}, "results": results}
    (output / "paper-tables.json").write_text(json.dumps(facts, indent=2) + "\n")
    (output / "paper-tables.md").write_text(to_markdown(results, study))
    plot(results, output / "paper-tables.png")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--set",
        action="append",
        required=True,
        metavar="NAME=FOLDER[,FOLDER...]",
        help="footage; the ablations and added losses are of the first set",
    )
    footage = "what all rows are trained on, in place of each set's own clips"
    parser.add_argument("--footage", action="append", default=[], metavar="FOLDER", help=footage)
    photos = "photographs for a synthetic camera, beside the footage"
    parser.add_argument("--photos", action="append", default=[], metavar="FOLDER", help=photos)
    held_out = "share of the clips that rows are judged on (default the paper's 1/6)"
    parser.add_argument("--held-out", type=float, default=1 / 6, metavar="SHARE", help=held_out)
    parser.add_argument("--runs", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--width", type=float, default=1.0, help="share of the paper's channels")
    parser.add_argument("--steps", type=int, default=100_000, help="steps a stage")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--comb-frames", type=int)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clips", type=int, default=64, help="held-out samples")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the networks' table")
    parser.add_argument("--ablation-seeds", type=int, default=1, help="seeds of the other tables")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--time-limit", metavar="TIME", help="save and stop after, say, 9m")
    args = parser.parse_args(arguments)
    if args.photos and not args.footage:
        parser.error("--photos: expected --footage beside it")
    sets = dict(_set(text) for text in args.set)
    copied = ("runs", "held_out", "width", "steps", "batch", "frames", "size", "comb_frames")
    copied += ("learning_rate", "precision", "device", "clips")
    study = Study(
        sets=sets,
        footage=tuple(args.footage),
        photos=tuple(args.photos),
        ends=time.monotonic() + seconds(args.time_limit) if args.time_limit else math.inf,
        **{name: getattr(args, name) for name in copied},
    )
    counts = {row.table: args.ablation_seeds for row in ROWS.values()} | {"networks": args.seeds}
    try:
        run(study, counts, args.rows, partial(write_tables, args.output, study))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except InputError as error:
        parser.error(f"{error} (--held-out is {study.held_out:.3g})")


def _set(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, folders = text.partition("=")
    return name, tuple(folders.split(","))


if __name__ == "__main__":
    main()
