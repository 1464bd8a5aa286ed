# SPDX-License-Identifier: Apache-2.0
"""The page's server without a browser: many visitors, the password, its end, what the command line shares."""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import media
import numpy as np
import pytest
from models import random_model
from page_visitor import Caller, serve, text_of

from vinpaint.cli import command_parser, main
from vinpaint.errors import InputError
from vinpaint.nn import InpainterConfig
from vinpaint.pretrained import save_pretrained
from vinpaint.video.reader import open_clip

pytest.importorskip("gradio", reason="the extra web is not installed")

VISITORS = 20


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_pretrained(random_model(InpainterConfig(width=0.125)), folder)
    return folder


def fill_a_clip_of_ones_own(server, folder, number):
    """The gray value of a clip tells whose it is."""
    from gradio_client import handle_file

    value = 20 + 10 * number
    pictures = [np.full((48, 64, 3), value, np.uint8)] * 4
    clip = media.write_video(
        folder / f"visitor{number}.mkv", frames=4, pictures=pictures, codec="ffv1", options={}
    )
    caller = Caller(server.address, download_files=str(folder / f"files{number}"))
    caller.works("load", caller.token, handle_file(str(clip)), False)
    caller.works("add_box", *caller.paint(), "20,10,12,8")
    said = caller.fill()
    shown = str(caller.call("show", caller.token, 0))
    paths = set(re.findall(r"file=(/[^\"]*visitor\d+-filled\.mkv)", shown))
    assert "Done: 4 frames" in said, said
    assert {Path(path).name for path in paths} == {f"visitor{number}-filled.mkv"}
    result = folder / f"filled{number}.mkv"
    urllib.request.urlretrieve(f"{server.address}/gradio_api/file={paths.pop()}", result)
    frames = np.stack([frame.rgb for frame in open_clip(result).frames()])
    return caller, value, frames


def test_twenty_visitors_at_once_none_is_lost_and_none_sees_anothers(tmp_path, weights):
    (tmp_path / "server").mkdir()
    options = ("--weights", weights, "--propagate", "off")
    with serve(tmp_path / "server", *options) as server:
        with ThreadPoolExecutor(VISITORS) as pool:
            done = list(
                pool.map(lambda n: fill_a_clip_of_ones_own(server, tmp_path, n), range(VISITORS))
            )
        for _, value, frames in done:
            assert abs(frames[:, 36:].astype(int) - value).max() <= 2  # far from the hole
        tokens = {caller.token for caller, _, _ in done}
        assert len(tokens) == VISITORS
        # Whoever does not know a token gets a sentence and a folder of their own, whoever lists gets nothing.
        stranger = Caller(server.address)
        assert stranger.token not in tokens
        assert "Your files were deleted" in text_of(stranger.call("show", "guessed", 0))
        (root,) = server.folder.iterdir()
        for path in (root, next(path for path in root.iterdir() if path.is_dir())):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"{server.address}/gradio_api/file={path}")


def test_a_crash_while_filling_is_a_sentence_and_the_page_goes_on(tmp_path, weights):
    from gradio_client import handle_file

    clip = media.write_video(tmp_path / "a.mkv", frames=300)
    (tmp_path / "server").mkdir()
    with serve(tmp_path / "server", "--weights", weights, "--propagate", "off") as server:
        caller = Caller(server.address)
        caller.works("load", caller.token, handle_file(str(clip)), False)
        caller.works("add_box", *caller.paint(), "20,10,12,8")
        before = server.kept()
        with ThreadPoolExecutor(1) as pool:
            filled = pool.submit(caller.fill)
            while not begun(server):  # the file that is being written
                assert not filled.done(), filled.result()
                time.sleep(0.01)
            for process in started_by(server.process.pid, "spawn_main"):
                os.kill(process, signal.SIGKILL)
            said = filled.result(60)
        assert "the process that fills has ended (SIGKILL, as when memory runs out)" in said
        assert server.kept() == before
        assert "Done: 300 frames" in caller.fill()


def begun(server):
    """Whether the process that fills has begun to write."""
    return any("filled-" in name and Path(name).name.startswith(".") for name in server.kept())


def started_by(parent, words):
    """Processes whose command line has ``words``, started by another."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            status = (folder / "status").read_text()
            if f"PPid:\t{parent}\n" in status and words in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    assert found
    return found


def test_other_machines_need_a_password(tmp_path, weights, capsys, monkeypatch):
    monkeypatch.delenv("VINPAINT_WEB_PASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal
    assert main(["web", "--host", "0.0.0.0"]) == 2
    assert "so the page needs a password; put it into the environment variable" in (
        capsys.readouterr().err
    )
    (tmp_path / "server").mkdir()
    with serve(
        tmp_path / "server", "--host", "0.0.0.0", "--weights", weights, password="tell nobody"
    ) as server:
        for path in ("gradio_api/info", "config", f"gradio_api/file={server.folder}"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{server.address}/{path}")
        request = urllib.request.Request(f"{server.address}/gradio_api/upload", b"", method="POST")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request)
        from gradio_client.exceptions import AuthenticationError

        with pytest.raises((AuthenticationError, ValueError)):
            Caller(server.address, auth=("me", "a guess"))
        assert Caller(server.address, auth=("me", "tell nobody")).token


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folder", "nowhere"], "--folder: no such folder: nowhere"),
        (["--port", "1", "--host", "203.0.113.7"], "cannot be listened at"),
    ],
)
def test_a_server_that_cannot_start_is_a_sentence(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setenv("VINPAINT_WEB_PASSWORD", "secret")
    monkeypatch.chdir(tmp_path)
    assert main(["web", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_page_has_every_option_of_the_command_line():
    from vinpaint.web.options import OF_THE_PAGE, OF_THE_SERVER, Options

    options = Options()
    names = {action.dest for action in command_parser("inpaint")._actions}
    shown = {control.elem_id.removeprefix("option-") for control in options.controls}
    assert shown | {*OF_THE_PAGE, *OF_THE_SERVER} == names
    assert not shown & {*OF_THE_PAGE, *OF_THE_SERVER}
    web = {action.dest for action in command_parser("web")._actions}
    assert {*OF_THE_SERVER} <= web
    values = [control.value for control in options.controls]
    defaults = vars(command_parser("inpaint").parse_args(["in.mp4", "-o", "out.mp4"]))
    read = options.read(values)
    assert options.flags(values) == []
    assert {**read, "weights": None} == {name: defaults[name] for name in read}
    assert read["weights"] == "combcn"


def test_options_are_read_as_the_command_line_reads_them():
    from vinpaint.web.options import Options

    options = Options({"weights": "runs/7/mine", "propagate": "off", "precision": "auto"})
    places = {c.elem_id.removeprefix("option-"): i for i, c in enumerate(options.controls)}
    values = [control.value for control in options.controls]
    read = options.read(values)
    assert (read["weights"], read["propagate"]) == ("runs/7/mine", "off")
    assert "runs" not in str(options.controls[places["weights"]].choices)
    assert options.flags(values) == ["--weights", "mine", "--propagate", "off"]
    values[places["weights"]], values[places["propagate"]] = "combcn", "auto"
    values[places["dilate"]], values[places["invert"]] = 9.0, True
    values[places["codec"]], values[places["crf"]] = "libx265", 20
    assert options.flags(values) == [
        "--dilate",
        "9",
        "--invert",
        "--codec",
        "libx265",
        "--crf",
        "20.0",
    ]
    parsed = command_parser("inpaint").parse_args(["in", "-o", "out", *options.flags(values)])
    assert isinstance(parsed, argparse.Namespace)
    assert (parsed.dilate, parsed.invert, parsed.codec) == (9, True, "libx265")
    for name, value in (("weights", "/etc"), ("propagate", "perhaps"), ("dilate", "wide")):
        changed = [*values]
        changed[places[name]] = value
        with pytest.raises(InputError, match=f"^--{name}: expected"):
            options.read(changed)


def test_without_gradio_the_message_names_the_extra(tmp_path):
    """In a process that cannot import it."""
    import subprocess
    import sys

    script = (
        "import sys; sys.modules['gradio'] = None; from vinpaint.cli import main; "
        "sys.exit(main(['web', '--folder', '.']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "pip install 'vinpaint[web]'" in ran.stderr
    assert list(tmp_path.iterdir()) == []
