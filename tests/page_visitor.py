# SPDX-License-Identifier: Apache-2.0
"""The page's server as its user starts it; visitors in a real browser, and such that call it without one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

# Not from the source folder, where Python would find the sources.
COMMAND = [sys.executable, "-c", "import sys; from vinpaint.cli import main; sys.exit(main())"]


BRUSH = np.array([0, 224, 255])
"""The colour of paint on the page."""

QUIET_SECONDS = 0.4
"""Without a request, after which a page is at rest."""


class Server:
    """A running ``vinpaint web``."""

    def __init__(self, process, address, folder):
        self.process, self.address, self.folder = process, address, folder

    def kept(self):
        """Files of visitors that lie in its folder, without Gradio's own."""
        (root,) = self.folder.iterdir()
        projects = [path for path in root.iterdir() if re.fullmatch("[0-9a-f]{32}", path.name)]
        return sorted(str(p.relative_to(root)) for project in projects for p in project.rglob("*"))


@contextmanager
def serve(folder: Path, *options, password=None):
    """``vinpaint web`` on a free port, its files in ``folder``; ended as a service is."""
    environment = {**os.environ, "VINPAINT_WEB_PASSWORD": password or ""}
    process = subprocess.Popen(
        [*COMMAND, "web", "--port", "0", "--folder", str(folder), *map(str, options)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )
    try:
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address, f"the server said {line!r}"
        yield Server(process, address[0].replace("0.0.0.0", "127.0.0.1").rstrip("/"), folder)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        process.stdout.close()
    assert code == 130
    assert list(folder.iterdir()) == []


def find_browser():
    """The path of a Chromium; skips, or fails with VINPAINT_REQUIRE_BROWSER=1, where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if os.environ.get("VINPAINT_REQUIRE_BROWSER") == "1":
        pytest.fail("VINPAINT_REQUIRE_BROWSER=1, but there is no Chromium", pytrace=False)
    return pytest.skip("there is no Chromium")


class Caller:
    """A visitor who calls what the page calls."""

    def __init__(self, address, **options):
        from gradio_client import Client

        self.client = Client(address, verbose=False, httpx_kwargs={"timeout": 120}, **options)
        self.token = self.call("arrive", "")[0]

    def call(self, name, *given, **named):
        return self.client.predict(*given, **named, api_name=f"/{name}")

    def works(self, name, *given, **named):
        """Call what starts a job, and wait for its end; what the page then says."""
        said = self.call(name, *given, **named)[1]
        assert "bad" not in said, said
        return self.call("watch", self.token)

    def fill(self):
        """Fill the video with the options as they are; what the page says at the end."""
        return text_of(self.works("fill", *self.paint()))

    def paint(self):
        """An editor on which nothing was painted, and what else goes with it."""
        return [self.token, None, 0, "always", "", False]


def share_of(color, element):
    """How much of what is seen of an element has a colour, nearly."""
    shot = cv2.imdecode(np.frombuffer(element.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return (abs(shot[..., ::-1].astype(int) - color) < 12).all(-1).mean()


def text_of(said):
    return re.sub("<[^>]*>", "", str(said))


class Visitor:
    """Somebody with a browser of their own on the page."""

    def __init__(self, browser, address):
        self._context = browser.new_context(
            viewport={"width": 1280, "height": 960}, accept_downloads=True
        )
        self.page = self._context.new_page()
        self.asked, self._awaited, self._heard = [], set(), time.monotonic()
        self.page.on("request", lambda request: self._note(request, True))
        self.page.on("requestfinished", lambda request: self._note(request, False))
        self.page.on("requestfailed", lambda request: self._note(request, False))
        self.page.goto(address)
        self.page.wait_for_selector("#upload input[type=file]", state="attached")

    def _note(self, request, asks):
        self._heard = time.monotonic()
        if asks:
            self.asked.append(request.url)
            if not re.search("/heartbeat/|/upload_progress", request.url):  # these may have no end
                self._awaited.add(request)
        else:
            self._awaited.discard(request)

    def settle(self, seconds=60):
        """Wait until the page has asked for nothing for a moment and has all that it asked for, as when no job runs."""
        self._heard = time.monotonic()
        until = self._heard + seconds
        while self._awaited or time.monotonic() - self._heard < QUIET_SECONDS:
            assert time.monotonic() < until, [request.url for request in self._awaited]
            self.page.wait_for_timeout(50)

    def leave(self):
        self._context.close()

    def says(self):
        """What the status line says."""
        return self.page.locator("#status .vp").inner_text()

    def wait_for(self, pattern, seconds=60):
        """Wait until the status line matches; gives what it says."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            said = self.says()
            if re.search(pattern, said):
                return said
            self.page.wait_for_timeout(50)
        raise AssertionError(f"waited {seconds} s for {pattern!r}, the page says {said!r}")

    def drop(self, path):
        self.page.set_input_files("#upload input[type=file]", str(path))

    def bring(self, path):
        """Drop a video and wait until it can be painted on."""
        self.drop(path)
        self.wait_for("Now paint over")
        self.page.wait_for_selector("#editor canvas")
        self.settle()

    def paint(self, *points, how="It stays in this place, in the whole video"):
        """Draw a stroke through points, in shares of the picture's width and height, and say what it is.

        While no job runs; what the page does once one has ended is waited for.
        """
        self.settle()
        if how:
            self.page.get_by_label(how).check()
        canvas = self.page.locator("#editor canvas").last
        before = share_of(BRUSH, canvas)
        self.stroke(*points)
        self.settle()  # the editor hands its strokes over
        assert share_of(BRUSH, canvas) > before, "the brush left no trace"

    def stroke(self, *points):
        """Draw it, whatever the page does meanwhile."""
        self.page.locator("#editor canvas").last.scroll_into_view_if_needed()
        box = None
        while box != (box := self.picture_box()):  # it is laid out in steps
            self.page.wait_for_timeout(200)
        spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*spots[0])
        self.page.mouse.down()
        for spot in spots[1:]:
            self.page.mouse.move(*spot, steps=3)
        self.page.mouse.up()

    def picture_box(self):
        """Where the picture lies in the editor's canvas: centred, as large as fits at its zoom."""
        canvas = self.page.locator("#editor canvas").last.bounding_box()
        zoom = float(self.page.locator("#editor").inner_text().split("%")[0].split()[-1]) / 100
        about = self.page.inner_text("#about")
        width, height = map(int, re.search(r"(\d+) x (\d+)", about).groups())
        width, height = (side * min(1, 960 / width) * zoom for side in (width, height))
        return {
            "x": canvas["x"] + (canvas["width"] - width) / 2,
            "y": canvas["y"] + (canvas["height"] - height) / 2,
            "width": width,
            "height": height,
        }

    def press(self, name):
        self.page.click(f"#{name}")

    def choose_frame(self, index):
        field = self.page.locator("#frame input[type=number]")
        field.fill(str(index))
        field.press("Enter")
        field.blur()
        self.settle()

    def download(self, path):
        with self.page.expect_download() as download:
            self.press("download")
        download.value.save_as(path)
        return download.value.suggested_filename
