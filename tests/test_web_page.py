# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, from the upload to the download, and what goes wrong on the way."""

from __future__ import annotations

import subprocess
from pathlib import Path

import media
import numpy as np
import pytest
from models import random_model
from page_visitor import BRUSH, Visitor, find_browser, serve, share_of

from vinpaint.nn import InpainterConfig
from vinpaint.pretrained import save_pretrained
from vinpaint.video.reader import open_clip

pytest.importorskip("gradio", reason="the extra web is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

STROKE = [(0.40, 0.40), (0.60, 0.40), (0.60, 0.60), (0.40, 0.60)]


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Narrow random networks: the page is tested here, not the fill."""
    folder = tmp_path_factory.mktemp("weights")
    save_pretrained(random_model(InpainterConfig(width=0.125)), folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, weights):
    options = ("--weights", weights, "--propagate", "off", "--max-frames", 400, "--max-size", 1)
    with serve(tmp_path_factory.mktemp("server"), *options) as server:
        yield server


@pytest.fixture
def visitor(browser, server):
    visitor = Visitor(browser, server.address)
    yield visitor
    visitor.leave()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    return media.write_video(folder / "holiday.mp4", frames=24, size=(160, 120), audio=True)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    return media.write_video(folder / "long.mp4", frames=400, size=(160, 120))


def frames_of(path):
    return np.stack([frame.rgb for frame in open_clip(path).frames()]).astype(int)


def test_from_the_upload_to_the_download(visitor, server, clip, tmp_path):
    visitor.bring(clip)
    visitor.paint(*STROKE)
    visitor.press("fill")
    said = visitor.wait_for("^Done: ")
    assert "frames/s). The result is below." in said
    visitor.page.wait_for_selector("#before-after img")
    assert visitor.page.locator("#parts label").all_inner_texts()[-1].startswith("1: painted on")
    assert visitor.download(tmp_path / "filled.mp4") == "holiday-filled.mp4"
    before, after = frames_of(clip), frames_of(tmp_path / "filled.mp4")
    assert after.shape == before.shape
    change = abs(after - before).mean(axis=(0, 3))
    painted = change[45:51, 66:94]  # along the stroke's upper side
    assert painted.mean() > 3 * change[:30].mean()
    assert media.packets(tmp_path / "filled.mp4", "audio") == media.packets(clip, "audio")
    command = visitor.page.locator("#command textarea").input_value()
    assert command.startswith("vinpaint inpaint holiday.mp4 --mask painted-")
    # The video plays, and nothing came from anywhere else.
    assert visitor.page.evaluate("document.querySelector('#filled-video video').readyState") >= 1
    local = (server.address, "data:", "blob:")
    assert [url for url in visitor.asked if not url.startswith(local)] == []


def test_the_slider_shows_other_frames_before_and_after(visitor, clip):
    visitor.bring(clip)
    visitor.paint(*STROKE)
    visitor.choose_frame(10)  # the paint is not lost, and stays where it was painted
    assert visitor.page.locator("#parts label").all_inner_texts() == [
        "1: painted on frame 0, whole video"
    ]
    visitor.press("try")
    visitor.wait_for("A first look is below")
    pictures = visitor.page.locator("#before-after img")
    sources = [pictures.nth(i).get_attribute("src") for i in range(2)]
    assert sources[0] != sources[1]
    moment = visitor.page.locator("#moment input[type=number]")
    visitor.settle()
    assert moment.input_value() == "10"
    moment.fill("3")
    moment.press("Enter")
    moment.blur()
    visitor.page.wait_for_function(
        "before => document.querySelector('#before-after img').src !== before", arg=sources[0]
    )


def test_boxes_stretches_and_parts_that_are_left_out(visitor, clip):
    visitor.bring(clip)
    visitor.page.get_by_label("in some frames only").check()
    visitor.page.locator("#when textarea, #when input").fill("2-5")
    visitor.page.get_by_label("As boxes around what I painted").check()
    visitor.paint(*STROKE, how=None)
    visitor.press("add")
    visitor.wait_for("The hole is marked")
    visitor.page.wait_for_selector("#parts label")
    labels = visitor.page.locator("#parts label").all_inner_texts()
    assert len(labels) == 1
    assert labels[0].startswith("box ")
    assert labels[0].endswith("@2-5")
    visitor.settle()  # the page is shown anew once the job has ended
    visitor.page.locator("#parts input").click()
    visitor.settle()
    visitor.press("fill")
    visitor.wait_for("There is no hole yet")


def test_cancelling_ends_the_run_and_the_page_goes_on(visitor, server, long_clip):
    visitor.bring(long_clip)
    before = server.kept()
    visitor.paint(*STROKE)
    visitor.press("fill")
    visitor.wait_for("Filling .* of 400")
    visitor.press("cancel")
    assert visitor.wait_for("^Cancelled") == "Cancelled; nothing half-written was left."
    assert [name for name in server.kept() if "filled" in name and name not in before] == []
    visitor.press("try")
    visitor.wait_for("A first look is below")


def test_a_fill_that_is_cancelled_leaves_the_earlier_one(visitor, long_clip):
    visitor.bring(long_clip)
    visitor.page.get_by_text("More ways to give the hole").click()
    visitor.page.locator("#box-text textarea, #box-text input").fill("1,1,20,20@3-10")
    visitor.press("add-box")
    visitor.wait_for("The hole is marked")
    visitor.page.locator("#options > button").click()  # nothing changes by being looked at
    visitor.press("fill")
    visitor.wait_for("^Done: 400 frames", 120)
    visitor.page.wait_for_selector("#download")
    command = visitor.page.locator("#command textarea").input_value()
    assert command.startswith("vinpaint inpaint long.mp4 --box=1,1,20,20@3-10 --weights ")
    assert "--crf" not in command
    visitor.paint(*STROKE)
    visitor.press("fill")
    visitor.wait_for("Filling .* of 400")
    visitor.press("cancel")
    visitor.wait_for("^Cancelled")
    visitor.settle()
    assert visitor.page.locator("#download").is_visible()
    assert visitor.page.locator("#command textarea").input_value() == command
    assert visitor.page.inner_text("#download") == "Download the video"
    visitor.press("try")
    visitor.wait_for("A first look is below")
    visitor.settle()
    assert visitor.page.inner_text("#download") == "Download the video that was filled before"
    assert not visitor.page.locator("#filled-video").is_visible()


def test_what_is_painted_while_a_job_runs_stays_paint(visitor, tmp_path):
    visitor.bring(media.write_video(tmp_path / "slow.mp4", frames=400, size=(320, 240)))
    visitor.page.get_by_text("More ways to give the hole").click()
    visitor.page.locator("#box-text textarea, #box-text input").fill("1,1,80,80")
    visitor.press("add-box")
    visitor.wait_for("The hole is marked")
    visitor.settle()
    picture = visitor.page.locator("#editor canvas").last
    before = share_of(BRUSH, picture)
    visitor.press("fill")
    visitor.wait_for("Filling .* of 400")
    visitor.stroke((0.4, 0.6), (0.6, 0.6))  # without having said what it is
    visitor.press("cancel")
    visitor.wait_for("^Cancelled")
    visitor.settle()
    assert visitor.says().startswith("Cancelled")
    assert share_of(BRUSH, picture) > before
    visitor.press("add")
    visitor.wait_for("Say first whether what you painted moves or stays")


def test_what_was_painted_is_asked_about_and_can_be_cleared(visitor, clip):
    visitor.bring(clip)
    visitor.paint(*STROKE, how=None)
    visitor.press("add")
    visitor.wait_for("Say first whether what you painted moves or stays")
    picture = visitor.page.locator("#editor canvas").last
    painted = share_of(BRUSH, picture)
    visitor.page.locator("#editor button[aria-label='Clear canvas']").click()
    visitor.settle()
    assert share_of(BRUSH, picture) < painted / 5  # the scene has a little of it too
    magenta = media.scene(0, 160, 120)[60, 80]
    assert share_of(magenta, picture) > 0.001  # the picture is there
    visitor.press("add")
    visitor.wait_for("Nothing new is painted")
    visitor.page.reload()
    visitor.wait_for("Your video is here as you left it")


def test_a_reload_in_mid_run_loses_nothing(visitor, long_clip):
    visitor.bring(long_clip)
    visitor.paint(*STROKE)
    visitor.press("fill")
    visitor.wait_for("Filling .* of 400")
    visitor.page.reload()
    visitor.wait_for("Filling .* of 400")
    assert "long.mp4" in visitor.page.inner_text("#about")
    visitor.wait_for("^Done: 400 frames", 120)
    visitor.page.wait_for_selector("#download")


def test_a_browser_that_is_closed_in_mid_run_leaves_nothing(browser, server, long_clip, clip):
    gone = Visitor(browser, server.address)
    gone.bring(long_clip)
    gone.paint(*STROKE)
    gone.press("fill")
    gone.wait_for("Filling .* of 400")
    gone.leave()
    other = Visitor(browser, server.address)
    other.bring(clip)
    for _ in range(120):
        if not any("long.mp4" in name for name in server.kept()):
            break
        other.page.wait_for_timeout(500)
    assert not any("long.mp4" in name for name in server.kept())
    other.paint(*STROKE)
    other.press("fill")
    other.wait_for("^Done: 24 frames")  # the queue is free again
    other.leave()


def test_two_visitors_wait_for_one_another_and_see_their_own(browser, server, clip, long_clip):
    first, second = Visitor(browser, server.address), Visitor(browser, server.address)
    for visitor, path in ((first, long_clip), (second, clip)):
        visitor.bring(path)
        visitor.paint(*STROKE)
    first.press("fill")
    first.wait_for("Filling")
    second.press("fill")
    second.wait_for("Waiting: 1 before you")
    second.wait_for("^Done: 24 frames", 120)
    first.wait_for("^Done: 400 frames")
    assert "long.mp4" in first.page.inner_text("#about")
    assert "holiday.mp4" in second.page.inner_text("#about")
    names = [v.page.locator("#command textarea").input_value() for v in (first, second)]
    assert ["long" in name for name in names] == [True, False]
    first.leave()
    second.leave()


def test_bad_input_is_a_sentence_and_the_page_goes_on(visitor, clip, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video at all")
    visitor.drop(text)
    assert "text.mp4" in visitor.wait_for("video: ")
    visitor.drop(media.write_video(tmp_path / "endless.mkv", frames=401, size=(32, 32)))
    visitor.wait_for("This video is too long: at most 400 frames")
    visitor.bring(clip)
    visitor.press("fill")
    visitor.wait_for("There is no hole yet: paint over what should go")
    visitor.press("add")
    visitor.wait_for("Nothing new is painted on this frame")
    visitor.page.get_by_text("More ways to give the hole").click()
    visitor.page.locator("#box-text textarea, #box-text input").fill("1,1,20,20@30-40")
    visitor.press("add-box")
    visitor.wait_for("past the end: the video has 24 frames")
    visitor.page.locator("#box-text textarea, #box-text input").fill("1,1,20,20@3-10")
    visitor.press("add-box")
    visitor.wait_for("The hole is marked")
    visitor.press("fill")
    visitor.wait_for("^Done: 24 frames")


def test_an_upload_over_the_limit_is_a_sentence(visitor, tmp_path, clip):
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2_000_000))
    visitor.drop(large)
    visitor.page.get_by_text("maximum allowed size").first.wait_for()
    visitor.page.reload()
    visitor.page.wait_for_selector("#upload input[type=file]", state="attached")
    visitor.bring(clip)


def test_a_full_disk_is_a_sentence_and_the_server_stays_up(browser, tmp_path, weights, clip):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "none", disk], check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: only root may")
    try:
        with serve(disk, "--weights", weights, "--propagate", "off") as server:
            visitor = Visitor(browser, server.address)
            visitor.bring(clip)
            visitor.paint(*STROKE)
            (root,) = disk.iterdir()
            (root / "other").write_bytes(bytes(40 << 20))
            before = server.kept()
            visitor.press("fill")
            visitor.wait_for("The server's disk is full, so nothing was written")
            # What was painted may have been added to the hole; nothing else is there.
            more = [Path(name).name for name in server.kept() if name not in before]
            assert [name for name in more if not name.startswith("painted")] == []
            with (root / "more").open("wb") as rest, pytest.raises(OSError, match="space"):
                rest.write(bytes(80 << 20))
            visitor.drop(clip)
            visitor.page.get_by_text("HTTP 507: The server's disk is full").wait_for()
            for name in ("other", "more"):
                (root / name).unlink()
            visitor.paint((0.2, 0.2), (0.8, 0.2))
            visitor.press("fill")
            visitor.wait_for("^Done: 24 frames")
            visitor.leave()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
