# SPDX-License-Identifier: Apache-2.0
"""The methods that an evaluation compares, by the names that the command line knows them by."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from vinpaint.devices import resolve_device, resolve_precision
from vinpaint.errors import InputError
from vinpaint.evaluation import classical
from vinpaint.evaluation.data import Frames, Hole
from vinpaint.evaluation.program import Program
from vinpaint.inpainting import Inpainter
from vinpaint.pretrained import CONFIG, SHIPPED, WEIGHTS, read_config, weights_folder
from vinpaint.propagation import Propagator
from vinpaint.propagation.completion import NETWORK
from vinpaint.streaming import Streamer
from vinpaint.video.windows import make_plan

Fill = Callable[[Frames, Hole], Frames]
"""Frames (F, H, W, 3), black in the hole, and the hole (F, H, W) to frames; only their hole is used."""

TRUTH = "truth"
"""The row that shows what the metrics give for the truth itself."""

CLASSICAL: dict[str, Fill] = {
    "mean": classical.mean,
    "harmonic": classical.harmonic,
    "telea": classical.telea,
    "navier-stokes": classical.navier_stokes,
    "temporal-median": classical.temporal_median,
}

DESCRIPTIONS = {
    "vinpaint": "as vinpaint inpaint fills: what other frames have seen, then 3DCN and CombCN",
    "networks": "3DCN and CombCN for the whole hole: the paper's system, --propagate off",
    "propagation": "what other frames have seen, and the smooth fill where none has",
    "stream:K": "as a stream that looks K frames ahead: vinpaint stream, or Streamer where the hole moves",
    "3dcn": "3DCN alone: its half-size frames enlarged",
    "2dcn": "CombCN alone, frame by frame (weights of that mode)",
    "mean": "the mean colour of the clip's known pixels",
    "harmonic": "a smooth fill of each frame from the hole's edge (Laplace)",
    "telea": f"OpenCV's fast marching, radius {classical.RADIUS}, frame by frame",
    "navier-stokes": f"OpenCV's fluid dynamics, radius {classical.RADIUS}, frame by frame",
    "temporal-median": "the median of what the clip shows at the same place, else the smooth fill",
    TRUTH: "the frames themselves, for reference",
    "command:TEMPLATE": "a program: TEMPLATE has {frames}, {masks} and {output}, folders of PNG frames",
}
"""The methods, and what each is. ``NAME=command:TEMPLATE`` names a program's row."""


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        name: what the row is called.
        load: makes the fill, once a process; what it costs is not timed.
        identity: everything the result depends on beside the frames and the hole; fills that were made under
            another identity are made again.
        warm_up: run once untimed, as a network's first run is slower than the others.
    """

    name: str
    load: Callable[[], Fill]
    identity: str = ""
    warm_up: bool = False


def resolve_methods(
    methods: Iterable[str | Method],
    *,
    weights: Sequence[str | Path] = (),
    device: str = "auto",
    precision: str = "auto",
) -> list[Method]:
    """The methods of their names (see :data:`DESCRIPTIONS`); a :class:`Method` stays as it is.

    Args:
        methods: names, in the order of the table.
        weights: folders or names of shipped weights, or NAME=FOLDER; a network's method has a row for each that
            fits it. Without any the first of the shipped ones.
        device: where the networks run.
        precision: what they compute in.

    Raises:
        InputError: an unknown or doubled name, no such weights, none that fit, a template without its folders.
    """
    named = _named_weights(weights)
    found: list[Method] = []
    for method in methods:
        if isinstance(method, Method):
            found.append(method)
        elif method in CLASSICAL:
            found.append(Method(method, partial(_the, CLASSICAL[method]), f"{classical.RADIUS}"))
        elif method == TRUTH:
            found.append(Method(TRUTH, _no_fill))
        elif method == "propagation":
            found.append(Method(method, _load_propagation, _digest(NETWORK), warm_up=True))
        elif method in ("vinpaint", "networks", "3dcn", "2dcn") or _lookahead(method) is not None:
            found.extend(_networks(method, named, device, precision))
        elif "command:" in method:
            found.append(_command(method))
        else:
            raise InputError(
                f"--methods: expected one of {', '.join(DESCRIPTIONS)}, got {method!r}"
            )
    names = [method.name for method in found]
    if not names:
        raise InputError(f"--methods: expected at least one of {', '.join(DESCRIPTIONS)}, got none")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"--methods: {twice} comes twice; name programs and weights apart, as in NAME=command:… and NAME=FOLDER"
        )
    return found


def _the(fill: Fill) -> Fill:
    return fill


def _no_fill() -> Fill:
    raise AssertionError("the truth is not filled")


def _named_weights(weights: Sequence[str | Path]) -> dict[str, Path]:
    """Folders by their names: the stated one, else the folder's (its parent's if that is ``weights``)."""
    named: dict[str, Path] = {}
    for entry in weights or SHIPPED[:1]:
        name, equals, folder = str(entry).partition("=")
        path = weights_folder(folder if equals else entry)
        if not equals:
            whole = path.resolve()
            name = whole.parent.name if whole.name == "weights" else whole.name
        if name in named:
            raise InputError(
                f"--weights: two folders are named {name}; name them apart, as in NAME=FOLDER"
            )
        read_config(path)  # a name that is none is an error even where no method needs it
        named[name] = path
    return named


def _networks(
    method: str, weights: Mapping[str, Path], device: str, precision: str
) -> list[Method]:
    target = resolve_device(device)
    dtype = resolve_precision(precision, target)
    mode = "2dcn" if method == "2dcn" else "combcn"
    fitting = {name: folder for name, folder in weights.items() if read_config(folder).mode == mode}
    if not fitting:
        raise InputError(
            f"--weights: the method {method} needs weights whose {CONFIG} says mode {mode}; "
            f"none of {', '.join(map(str, weights.values()))} does"
        )
    carrying = [NETWORK] if _carries(method) else []
    return [
        Method(
            name=method if len(weights) == 1 else f"{method} {name}",
            load=partial(_load_network, method, folder, device, precision),
            identity=f"{_digest(folder / WEIGHTS, folder / CONFIG, *carrying)} {target} {dtype}",
            warm_up=True,
        )
        for name, folder in fitting.items()
    ]


def _lookahead(method: str) -> int | None:
    """K of ``stream:K``."""
    name, _, frames = method.partition(":")
    return int(frames) if name == "stream" and frames.isdecimal() else None


def _carries(method: str) -> bool:
    return method == "vinpaint" or _lookahead(method) is not None


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _load_propagation() -> Fill:
    propagator = Propagator()

    def fill(frames: Frames, hole: Hole) -> Frames:
        masks = hole.view(np.uint8)
        plan = make_plan(masks, len(masks))
        carried = [*propagator(zip(frames, masks, strict=True), plan)]
        filled = np.stack([image for image, _, _ in carried])
        remaining = np.stack([mask != 0 for _, mask, _ in carried])
        return classical.harmonic(filled, remaining) if remaining.any() else filled

    return fill


def _load_network(method: str, folder: Path, device: str, precision: str) -> Fill:
    inpainter = Inpainter.from_pretrained(
        folder,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        propagate="auto" if _carries(method) else "off",
    )
    lookahead = _lookahead(method)
    if lookahead is not None:
        return partial(_stream, inpainter, lookahead)
    if method == "3dcn":
        inpainter.model.paint = _enlarged  # type: ignore[method-assign,assignment]
    return lambda frames, hole: inpainter(frames, hole)  # noqa: PLW0108 - typed for arrays alone


def _stream(inpainter: Inpainter, lookahead: int, frames: Frames, hole: Hole) -> Frames:
    fixed = hole[0] if (hole == hole[:1]).all() else None
    streamer = Streamer(inpainter, lookahead=lookahead, mask=fixed)
    filled = [
        image
        for frame, mask in zip(frames, hole, strict=True)
        for image in streamer.push(frame, mask)
    ]
    return np.stack(filled + streamer.flush())


def _enlarged(x: Tensor, guidance: Tensor) -> Tensor:
    """In CombCN's place: 3DCN's frames, enlarged to the size of its input ``x``."""
    size = (x.shape[2], *x.shape[3:])
    return F.interpolate(guidance.float(), size, mode="trilinear", align_corners=False)


def _command(method: str) -> Method:
    name, _, template = method.partition("command:")
    if name and not name.endswith("="):
        raise InputError(
            f"--methods: expected command:TEMPLATE or NAME=command:TEMPLATE, got {method!r}"
        )
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise InputError(f"--methods: {template!r} cannot be split into words: {error}") from error
    for folder in ("{frames}", "{masks}", "{output}"):
        if folder not in template:
            raise InputError(
                f"--methods: a command's template needs {{frames}}, {{masks}} and {{output}}; "
                f"{template!r} has no {folder}"
            )
    return Method(name[:-1] or words[0], partial(Program, words), template)
