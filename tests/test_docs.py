# SPDX-License-Identifier: Apache-2.0
"""The documentation's site says what is so: its examples run, its lists are whole, its links lead somewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
from examples import blocks, check_command, run_python, vinpaint_commands
from media import write_video

DOCS = Path(__file__).parent.parent / "docs"
PAGES = DOCS / "pages"
MARKDOWN = sorted(PAGES.glob("*.md"))

MOST_BYTES = 300_000
"""Of a picture."""


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch):
    """One of docs/tools, imported."""

    def find(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(DOCS / "tools"))
        return importlib.import_module(name)

    return find


# --- the examples


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=f"{page.stem}-{number}")
        for page in MARKDOWN
        for number, code in enumerate(blocks(page.read_text(), "python"))
    ],
)
def test_python_examples_run(code: str, tmp_path, monkeypatch) -> None:
    write_video(tmp_path / "holiday.mp4", frames=8, size=(160, 96))
    monkeypatch.chdir(tmp_path)
    run_python(code, "docs")


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in MARKDOWN])
def test_commands_parse(page: Path) -> None:
    for command in vinpaint_commands(page.read_text()):
        check_command(command)


def test_a_wrong_command_is_found() -> None:
    (command,) = vinpaint_commands("```sh\nffmpeg -i a - | vinpaint stream - --no-such -o b\n```\n")
    with pytest.raises(AssertionError, match="--no-such"):
        check_command(command)


# --- the lists


def test_every_message_has_its_line(tool) -> None:
    messages = tool("messages")
    missing, stale = messages.differences(messages.collect(), messages.PAGE.read_text())
    assert missing == []
    assert stale == []


def test_a_new_message_is_missed(tool, tmp_path) -> None:
    messages = tool("messages")
    (tmp_path / "new.py").write_text(
        "def f(n):\n"
        "    said = f'--new: expected 1, got {n}'\n"
        "    raise InputError(said)\n"
        "def g(path):\n"
        "    warnings.warn('new ' f'in {path}', InputWarning)\n"
    )
    page = "`--new: expected 1, got …`\n:   Why.\n\n`--old: expected 2`\n:   Why.\n"
    missing, stale = messages.differences(messages.collect(tmp_path), page)
    assert [message.text for message in missing] == ["new in …"]
    assert stale == ["--old: expected 2"]


def test_each_message_stands_once(tool) -> None:
    messages = tool("messages")
    lines = messages.documented(messages.PAGE.read_text())
    assert [line for line in lines if lines.count(line) > 1] == []


def test_the_page_of_the_command_line_is_up_to_date(tool) -> None:
    page = tool("cli_page")
    assert page.PAGE.read_text() == page.page(), "run docs/tools/cli_page.py"


def test_the_drawings_are_up_to_date(tool) -> None:
    stale = [p.name for p, text in tool("draw_kernels").drawings() if p.read_text() != text]
    assert stale == [], "run docs/tools/draw_kernels.py"


def test_the_plots_show_the_measured_figures(tool) -> None:
    assert tool("plots").stale() == [], "run docs/tools/plots.py"


def test_the_gallery_is_of_the_shipped_clip_and_weights(tool) -> None:
    assert tool("gallery").main(["--check"]) == 0, "run docs/tools/gallery.py"


def test_pictures_are_small_and_shown() -> None:
    text = "".join(page.read_text() for page in MARKDOWN)
    pictures = [p for p in (PAGES / "pictures").iterdir() if p.suffix != ".json"]
    assert [p.name for p in pictures if p.stat().st_size > MOST_BYTES] == []
    assert [p.name for p in pictures if f"pictures/{p.name}" not in text] == []


def test_limits_are_those_of_the_code() -> None:
    from vinpaint.masking import logo, making
    from vinpaint.web import project, server, workspaces

    said = {
        "masks": [
            f"up to about {making.LOGO_FRAMES}\nframes",
            f"fewer than {logo._FEWEST} frames",
            f"fewer than {logo._SMALLEST} pixels",
            f"followed at {making.FOLLOWED_SIDE} pixels",
        ],
        "web": [
            f"Up to {project.TRIED_FRAMES} frames",
            f"about {workspaces.CLOSED_SECONDS:.0f} seconds after the tab was closed",
            f"up to {project.Limits().pixels / 1e6:.1f} million pixels",
        ],
    }
    assert workspaces.GONE_SECONDS == 3 * 60
    assert server.UPLOAD_SECONDS == 30 * 60
    for name, sentences in said.items():
        text = (PAGES / f"{name}.md").read_text()
        assert [s for s in sentences if s not in text] == []


# --- the site


class _Page(HTMLParser):
    """Where a page can be entered, and where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.anchors.add(str(given["id"]))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if tag in ("script", "img", "source", "iframe") and given.get("src"):
            self.loaded.append(str(given["src"]))
        if tag == "link" and given.get("rel") != "canonical" and given.get("href"):
            self.loaded.append(str(given["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    for needed in ("mkdocs", "material", "mkdocstrings_handlers.python", "latex2mathml"):
        pytest.importorskip(needed, reason=f"the site needs {needed}: the extra docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", DOCS / "mkdocs.yml", "-d", folder],
        cwd=folder,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": "", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_links_and_anchors_hold(site: Path) -> None:
    pages = {path.resolve(): _Page(path.read_text()) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if not (parts.scheme == "https" and "." in parts.netloc):
                    broken.append(f"{path.name}: {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and anchor not in pages[target].anchors):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    outside = [
        f"{path.name}: {link}"
        for path in site.rglob("*.html")
        for link in _Page(path.read_text()).loaded
        if urlsplit(link).netloc
    ]
    styles = [
        path.name
        for path in site.rglob("*.css")
        if re.search(r"(url\(|@import)\s*[\"']?https?:", path.read_text())
    ]
    assert outside == []
    assert styles == []


def test_formulas_are_markup(site: Path) -> None:
    for name in ("operators", "kernels"):
        text = (site / f"{name}.html").read_text()
        assert text.count("<math") > 3
        assert "FORMULA" not in text
        assert "\\frac" not in text
