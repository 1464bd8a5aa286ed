# SPDX-License-Identifier: Apache-2.0
"""Pictures of the page for the documentation: the shipped clip, filled with the shipped weights in a real browser.

python docs/tools/screenshots.py        # writes docs/pages/pictures/page-*.png; a few minutes
"""

from __future__ import annotations

import io
import sys
import tempfile
from importlib import resources
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from page_visitor import Visitor, find_browser, serve

PICTURES = ROOT / "docs" / "pages" / "pictures"
CLIP = Path(str(resources.files("vinpaint") / "assets" / "demo" / "walker.mp4"))

WALKER = [
    (0.73, 0.38),
    (0.72, 0.50),
    (0.75, 0.48),
    (0.70, 0.60),
    (0.77, 0.63),
    (0.71, 0.69),
    (0.75, 0.70),
    (0.74, 0.84),
]
"""A stroke over the person in frame FRAME, in shares of the picture."""
FRAME = 8

SEEN = 1450
"""Pixels of the page's height that are shown: the result's end is a list of files."""
WIDTH = 900


def main() -> None:
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        browser = driver.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        with serve(Path(folder)) as server:
            visitor = Visitor(browser, server.address)
            visitor.bring(CLIP)
            photograph(visitor, "page-1-open")
            visitor.choose_frame(FRAME)
            visitor.paint(*WALKER, how="It moves: follow it")
            photograph(visitor, "page-2-painted")
            visitor.press("fill")
            visitor.wait_for("Filling .*left", 900)
            photograph(visitor, "page-running")
            visitor.wait_for("^Done: ", 900)
            visitor.page.wait_for_selector("#before-after img")
            moment = visitor.page.locator("#moment input[type=number]")
            moment.fill(str(FRAME + 6))
            moment.press("Enter")
            moment.blur()
            visitor.settle()
            photograph(visitor, "page-3-filled")
            visitor.leave()
        browser.close()


def photograph(visitor: Visitor, name: str) -> None:
    """The page down to the comparison, smaller, in 256 colours: it is mostly plain."""
    visitor.page.evaluate("window.scrollTo(0, 0)")
    visitor.page.wait_for_timeout(1000)
    whole = Image.open(io.BytesIO(visitor.page.screenshot(full_page=True))).convert("RGB")
    seen = whole.crop((0, 0, whole.width, min(whole.height, SEEN)))
    shot = seen.resize((WIDTH, round(seen.height * WIDTH / seen.width)), Image.Resampling.LANCZOS)
    shot.quantize(256, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
