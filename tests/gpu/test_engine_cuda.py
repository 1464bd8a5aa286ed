# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines on a card: the graph's pixels, again and again, from several threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from models import random_model

from vinpaint import engine
from vinpaint.engine.graph import ClipGraph
from vinpaint.nn import InpainterConfig

pytestmark = pytest.mark.needs_cuda

FRAMES, HEIGHT, WIDTH = 8, 40, 56


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_an_engine_gives_the_graphs_pixels(backend: Any, precision: Any, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    model = random_model(InpainterConfig(width=0.25, prefill="smooth"))
    generator = torch.Generator().manual_seed(0)
    size = (FRAMES, HEIGHT, WIDTH)
    clips = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[:, 10:30, 12:40] = 255
    live = torch.ones(FRAMES, dtype=torch.uint8)
    path = engine.compile(
        model,
        backend=backend,
        frames=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        context=2,
        precision=precision,
        cache=tmp_path,
    )
    runs = engine.load(path, cache=tmp_path)
    graph = ClipGraph(model, context=2)
    with torch.no_grad():
        expected = [graph(clip, mask, live)[0] for clip in clips]

    def check() -> None:
        for clip, wanted in zip(clips, expected, strict=True):
            completed, invalid = runs(*(part.cuda() for part in (clip, mask, live)))
            assert invalid.tolist() == [0]
            found = completed.cpu()
            difference = (found.int() - wanted.int()).abs()
            assert difference.float().mean() < (0.1 if precision == "fp32" else 1)
            assert torch.equal(found[mask[2:-2] == 0], wanted[mask[2:-2] == 0])

    check()
    failures: list[BaseException] = []

    def in_thread() -> None:
        try:
            check()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=in_thread) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
