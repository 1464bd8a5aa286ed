# SPDX-License-Identifier: Apache-2.0
"""The page beside the command line: the same clip and hole, from the press of the button to the end."""

from __future__ import annotations

import re
import subprocess
import time
from importlib import resources
from pathlib import Path
from statistics import median

import pytest
from harness import ROUNDS, SMOKE
from page_visitor import COMMAND, Caller, serve

from vinpaint.video.reader import open_clip

pytest.importorskip("gradio", reason="the extra web is not installed")

CLIP = Path(str(resources.files("vinpaint") / "assets" / "demo" / "walker.mp4"))
BOX = "100,60,48,40@0-3" if SMOKE else "100,60,48,40"


def test_page(benchmark, tmp_path: Path) -> None:
    from gradio_client import handle_file

    def on_the_command_line() -> float:
        """The seconds that it says; what Python takes to start is not among them."""
        words = ["inpaint", str(CLIP), f"--box={BOX}", "-o", "out.mp4", "--overwrite"]
        ran = subprocess.run(
            [*COMMAND, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        found = re.search(r"([\d.]+) s \(", ran.stdout)
        assert found, ran.stderr
        return float(found[1])

    (tmp_path / "server").mkdir()
    with serve(tmp_path / "server") as server:
        caller = Caller(server.address, download_files=str(tmp_path / "files"))
        caller.works("load", caller.token, handle_file(str(CLIP)), False)
        caller.works("add_box", *caller.paint(), BOX)

        def on_the_page() -> float:
            start = time.perf_counter()
            said = caller.fill()
            assert "Done: 64 frames" in said, said
            return time.perf_counter() - start

        on_the_page()  # it loads the networks
        line, page = [], []

        def a_round() -> None:
            line.append(on_the_command_line())
            page.append(on_the_page())

        benchmark.pedantic(a_round, rounds=ROUNDS, iterations=1)
        ours = min((tmp_path / "server").rglob("walker-filled.mp4"))
        for a, b in zip(
            open_clip(ours).frames(), open_clip(tmp_path / "out.mp4").frames(), strict=True
        ):
            assert (a.rgb == b.rgb).all()
    benchmark.extra_info["command line, s"] = round(median(line), 2)
    benchmark.extra_info["page, s"] = round(median(page), 2)
    benchmark.extra_info["page / command line"] = round(median(page) / median(line), 3)
