# SPDX-License-Identifier: Apache-2.0
"""The page of an evaluation: whole, and with nothing behind its links missing."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import scene, write_folder

from vinpaint.evaluation import Method, Results, evaluate
from vinpaint.evaluation.results import Score
from vinpaint.evaluation.sheets import Sheet
from vinpaint.evaluation.report import write_report

VOID = {"meta", "img"}
OPTIONAL_END = {"tr", "td", "th", "li", "p"}


class _Page(HTMLParser):
    """Checks that what is opened is closed, and collects what is referred to and said."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID | OPTIONAL_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in OPTIONAL_END:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    for seed, name in enumerate(("one", "t<w>o")):
        write_folder(tmp_path / "clips" / name, [scene(i, 64, 40, seed) for i in range(4)])
    return tmp_path / "clips"


def test_the_page_is_whole_and_refers_to_what_is_there(clips: Path, tmp_path: Path) -> None:
    failing = Method("a & b", lambda: 1 / 0)
    results = evaluate(
        clips,
        ["mean", "telea", "truth", failing],
        output=tmp_path / "out",
        holes=["box", "free-form"],
        perceptual=False,
    )
    path = write_report(results, tmp_path / "out")
    page = _Page(path)
    assert not page.open
    assert len(page.sources) == 2 * (2 + 2)
    for source in page.sources:
        assert cv2.imread(str(path.parent / source)) is not None
    for word in ("telea", "t<w>o", "a & b on one (box): division by zero", "Fréchet distance"):
        assert word in page.words
    assert f"{results.mean('box', 'telea')['l1']:.2f}" in page.words


def test_nothing_filled_is_a_page_without_plots(clips: Path, tmp_path: Path) -> None:
    results = evaluate(clips, ["truth"], output=tmp_path / "out", perceptual=False)
    page = _Page(write_report(results, tmp_path / "out"))
    assert len(page.sources) == 2  # the sheets
    assert not list((tmp_path / "out" / "plots").iterdir())


def test_many_clips_and_missing_scores_are_drawn(tmp_path: Path) -> None:
    names = [f"clip{i}" for i in range(30)]
    results = Results(names, ["box"], ["x", "truth"], {}, {})
    for i, name in enumerate(names):
        values = {"l1": float(i), "warp_error": float("nan") if i % 2 else 1.0}
        results.scores.append(Score(name, "box", "x", values))
    results.scores.append(Score("clip0", "box", "truth", {"l1": 0.0, "warp_error": 0.5}))
    write_report(results, tmp_path)
    for name in ("means", "clips"):
        assert cv2.imread(str(tmp_path / "plots" / f"box-{name}.png")).std() > 10


def test_a_sheet_has_a_row_for_each_method(tmp_path: Path) -> None:
    truth = np.full((6, 40, 60, 3), 90, np.uint8)
    hole = np.zeros((6, 40, 60), bool)
    hole[1:, 10:20, 20:35] = True
    sheet = Sheet(truth, hole)
    heights = []
    for name in ("first", "second with-a-name-that-is-much-longer-than-there-is-room-for"):
        sheet.add(name, np.where(hole[..., None], np.uint8([250, 0, 0]), truth))
        sheet.save(tmp_path / "sheet.jpg")
        picture = cv2.imread(str(tmp_path / "sheet.jpg")).astype(int)
        heights.append(len(picture))
        red = (picture[..., 2] > 200) & (picture[..., 1] < 60) & (picture[..., 0] < 60)
    assert heights[1] > heights[0]
    rows = np.flatnonzero(red[:, 200:].sum(1) > 90)
    assert len(rows) > 100  # two rows show the fill
    assert rows[0] > heights[0] // 2  # neither the frame nor the truth does
