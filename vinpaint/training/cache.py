# SPDX-License-Identifier: Apache-2.0
"""Shots decoded once: cut, cropped and made small, one memory-mappable ``.npy`` file each.

A cache folder holds, for every source, ``NAME@FINGERPRINT@START.npy`` a shot and, written last,
``NAME@FINGERPRINT.json`` that lists them, or says why there are none. Shots without the list are what a killed run left; they
are not used and are written anew. Runs with other footage or options have other fingerprints, so
they can share a cache. For the same reason nothing removes the shots of footage that has changed
since: delete the cache to be rid of them.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import math
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputError
from vinpaint.processes import end_with_parent
from vinpaint.training.camera import CameraConfig, film
from vinpaint.training.sources import Box, Source
from vinpaint.video.images import eight_bit

Pixels = NDArray[np.uint8]

Crop = Literal["none", "center-square", "boxes"]

LONGEST_SHOT = 600
"""Frames; a longer shot is stored in parts, so that the memory of a decoder stays bounded."""

FORMAT = 1
"""Part of every fingerprint; raise it when the same source would give other pixels."""


@dataclass(frozen=True)
class Shot:
    """One decoded shot.

    Attributes:
        source: name of the clip it was cut from.
        path: the ``.npy`` file, (frames, height, width, 3) uint8 RGB.
        mean: red, green and blue in 0..255.
    """

    source: str
    path: Path
    frames: int
    height: int
    width: int
    mean: tuple[float, float, float]


@dataclass(frozen=True)
class Decoding:
    """How footage becomes shots; what a fingerprint is made of beside the source itself."""

    short_side: int
    crop: Crop
    box_margin: float
    camera: CameraConfig

    def folder(self, cache: str | Path) -> Path:
        """Where the shots lie: short sides and crops are kept side by side."""
        return Path(cache) / f"{self.short_side}-{self.crop}"

    def fingerprint(self, source: Source) -> str:
        """Equal as long as decoding ``source`` again would give the same shots."""
        how = asdict(self.camera) if source.kind == "photo" else (source.box, self.box_margin)
        which = (source.kind, source.number, source.stamp())
        facts = (FORMAT, which, self.short_side, self.crop, how)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def entry(self, source: Source) -> str:
        """What the names of all files of ``source``, as it is now, begin with in the cache."""
        return f"{source.name}@{self.fingerprint(source)[:12]}"


@dataclass(frozen=True)
class Decoded:
    """What became of a source.

    Attributes:
        shots: of the source.
        failure: why there are none, and how to have it tried again.
    """

    shots: list[Shot]
    failure: str | None = None


def find_decoded(folder: Path, source: Source, decoding: Decoding) -> Decoded | None:
    """What became of a source, as it is now; ``None`` if it has not been decoded."""
    path = folder / f"{decoding.entry(source)}.json"
    try:
        entry = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    if "failure" in entry:
        return Decoded([], f"{entry['failure']} (delete {path} to try again)")
    return Decoded([_shot(folder, source.name, row) for row in entry["shots"]])


def loose_shots(folder: Path) -> list[Shot]:
    """Every ``.npy`` file of a folder, for shots that were made elsewhere."""
    shots = []
    for path in sorted(folder.glob("*.npy")):
        pixels = np.load(path, mmap_mode="r")
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
            raise InputError(
                f"cache: {path} is no shot; expected (F, H, W, 3) uint8, "
                f"got {pixels.shape} {pixels.dtype}"
            )
        source = path.stem.partition("@")[0] or path.stem
        frames, height, width = pixels.shape[:3]
        shots.append(Shot(source, path, frames, height, width, _mean(pixels)))
    return shots


def decode(folder: Path, source: Source, decoding: Decoding) -> str | None:
    """Decode a source into the cache. That it cannot be decoded is kept there as well.

    Returns:
        Why the source cannot be used; ``None`` if it can.
    """
    entry = decoding.entry(source)
    _remove_shots(folder, entry)
    rows = []
    shots = _shots(source, decoding)
    while True:
        try:
            start, pixels = next(shots)
        except StopIteration:
            break
        except (ValueError, cv2.error) as error:  # InputError is a ValueError
            _remove_shots(folder, entry)
            _write_entry(folder, entry, {"failure": str(error)})
            return str(error)
        path = folder / f"{entry}@{start:06d}.npy"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, pixels)
        partial.replace(path)
        rows.append({"file": path.name, "shape": pixels.shape[:3], "mean": _mean(pixels)})
    _write_entry(folder, entry, {"shots": rows})
    return None


def decode_all(
    folder: Path, sources: Sequence[Source], decoding: Decoding, processes: int | None
) -> Iterator[tuple[Source, str | None]]:
    """Every source with what :func:`decode` says of it, in the order in which they are done."""
    processes = min(processes or os.cpu_count() or 1, len(sources))
    if processes <= 1:
        for source in sources:
            yield source, decode(folder, source, decoding)
        return
    remaining = deque(sources)
    while remaining:
        suspects = yield from _decode_until_crash(folder, remaining, decoding, processes)
        # One of these crashed a decoder, and with it all: each in a process of its own shows which.
        for source in suspects:
            with _decoders(1) as pool:
                try:
                    yield source, pool.submit(decode, folder, source, decoding).result()
                except BrokenProcessPool:
                    # Not kept: it may be the memory that ran out.
                    _remove_shots(folder, decoding.entry(source))
                    yield source, "its decoder crashed"


def _decode_until_crash(
    folder: Path, remaining: deque[Source], decoding: Decoding, processes: int
) -> Generator[tuple[Source, str | None], None, list[Source]]:
    """Decode what ``remaining`` holds and take it out; returns what ran when a decoder crashed."""
    running: dict[Future[str | None], Source] = {}
    with _decoders(processes) as pool:
        try:
            while running or remaining:
                # Few at a time: whoever stops listening leaves little to decode to the end.
                while remaining and len(running) < 2 * processes:
                    future = pool.submit(decode, folder, remaining[0], decoding)
                    running[future] = remaining.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    reason = future.result()
                    yield running.pop(future), reason
        except BrokenProcessPool:
            return list(running.values())
    return []


@contextmanager
def _decoders(processes: int) -> Iterator[ProcessPoolExecutor]:
    # Not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """A decoder whose parent was killed would go on writing beside the run that takes over."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    end_with_parent()


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """One process at a time writes to a cache; the next waits and then finds the work done."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _shots(source: Source, decoding: Decoding) -> Iterator[tuple[int, Pixels]]:
    if source.kind == "photo":
        return film(source.path, source.name, decoding.short_side, decoding.camera)
    return _cut(source, decoding)


def _cut(source: Source, decoding: Decoding) -> Iterator[tuple[int, Pixels]]:
    """First frame and (F, h, w, 3) pixels of every shot of a clip; one shot in memory at a time."""
    # Decoders are needed here alone: shots that are decoded already train without them.
    from vinpaint.video.reader import open_clip
    from vinpaint.video.shots import find_cuts

    clip = open_clip(source.path, argument="folders")
    if decoding.crop == "boxes" and source.box is None:
        raise InputError(f"boxes: no box for {source.path.name}")
    cuts = [*find_cuts(thumbnail.image for thumbnail in clip.thumbnails()), math.inf]
    start = 0
    shot: list[Pixels] = []
    for frame in clip.frames():
        if frame.index == cuts[0] or len(shot) == LONGEST_SHOT:
            yield start, np.stack(shot)
            start, shot = frame.index, []
        cuts = cuts[1:] if frame.index == cuts[0] else cuts
        shot.append(_small(_cropped(eight_bit(frame.rgb), source.box, decoding), decoding))
    yield start, np.stack(shot)


def _cropped(frame: Pixels, box: Box | None, decoding: Decoding) -> Pixels:
    height, width = frame.shape[:2]
    if decoding.crop == "none":
        return frame
    x, y, w, h = box if box is not None else (0, 0, width, height)
    side = min(height, width)
    if box is not None:
        side = min(side, round(max(w, h) * (1 + decoding.box_margin)))
    left = min(max(round(x + (w - side) / 2), 0), width - side)
    top = min(max(round(y + (h - side) / 2), 0), height - side)
    return frame[top : top + side, left : left + side]


def _small(frame: Pixels, decoding: Decoding) -> Pixels:
    height, width = frame.shape[:2]
    scale = decoding.short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    if size == (width, height):
        return np.ascontiguousarray(frame)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(frame), size, interpolation=how), np.uint8)


def _mean(pixels: Pixels) -> tuple[float, float, float]:
    red, green, blue = pixels[::8, ::8, ::8].reshape(-1, 3).mean(0, dtype=np.float64).tolist()
    return red, green, blue


def _write_entry(folder: Path, entry: str, content: dict[str, Any]) -> None:
    partial = folder / f"{entry}.partial"
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(folder / f"{entry}.json")


def _shot(folder: Path, source: str, row: dict[str, Any]) -> Shot:
    frames, height, width = row["shape"]
    red, green, blue = row["mean"]
    return Shot(source, folder / row["file"], frames, height, width, (red, green, blue))


def _remove_shots(folder: Path, entry: str) -> None:
    for suffix in ("npy", "partial"):
        for path in folder.glob(f"{glob.escape(entry)}@*.{suffix}"):
            path.unlink()
