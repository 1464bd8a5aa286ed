# SPDX-License-Identifier: Apache-2.0
"""Who is on the page, found again by a token, and deleted after a while."""

from __future__ import annotations

import stat
import threading

import pytest

from vinpaint.errors import InputError
from vinpaint.web import workspaces as module
from vinpaint.web.jobs import Jobs
from vinpaint.web.project import Limits
from vinpaint.web.workspaces import Workspaces


class Clock:
    """Time that stands still until it is moved."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def all_of_them(tmp_path, clock):  # noqa: ARG001 - it stands still from the beginning
    return Workspaces(tmp_path, Limits(), keep=3600, count=3)


@pytest.fixture
def jobs():
    jobs = Jobs(limit=3)
    yield jobs
    jobs.close()


def folders(root):
    return sorted(root.iterdir())


def test_a_page_that_comes_back_finds_its_workspace(all_of_them):
    mine, other = all_of_them.open(), all_of_them.open()
    assert all_of_them.open(mine.token) is mine
    assert all_of_them.get(other.token) is other
    assert mine.token not in str(mine.project.folder)  # who is given a file cannot guess the token
    assert mine.project.folder != other.project.folder
    assert len(mine.token) >= 32


def test_a_token_that_is_unknown_is_a_new_visitor_or_a_sentence(all_of_them):
    assert all_of_them.open("made up").token != "made up"
    with pytest.raises(InputError, match=r"deleted: nothing was done for 60 minutes"):
        all_of_them.get("made up")
    with pytest.raises(InputError):
        all_of_them.get("")


def test_visitors_have_a_limit_and_leaving_makes_room(all_of_them, clock):
    first, *_ = [all_of_them.open() for _ in range(3)]
    with pytest.raises(InputError, match="The server is full: 3 visitors"):
        all_of_them.open()
    all_of_them.close_page(first.token)
    clock.now += module.CLOSED_SECONDS + 1
    all_of_them.sweep()
    all_of_them.open()


@pytest.mark.parametrize("closed", [False, True])
def test_files_of_a_page_that_is_gone_are_deleted_with_its_job(
    all_of_them, clock, jobs, tmp_path, closed
):
    workspace = all_of_them.open()
    (workspace.project.folder / "file").write_bytes(b"x")
    begun, ended = threading.Event(), threading.Event()

    def work(told):
        begun.set()
        try:
            while not ended.wait(0.01):
                told("works", 0, 0)
        finally:
            ended.set()

    job = workspace.start(jobs, work)
    assert begun.wait(5)
    if closed:
        all_of_them.close_page(workspace.token)
    patience = module.CLOSED_SECONDS if closed else module.GONE_SECONDS
    clock.now += patience - 1
    all_of_them.sweep()
    assert len(folders(tmp_path)) == 1
    assert job.active
    clock.now += 2
    all_of_them.sweep()
    assert job.wait(5)
    assert job.state == "cancelled"
    all_of_them.sweep()
    assert folders(tmp_path) == []
    assert all_of_them.folders() == set()


def test_a_reload_keeps_everything(all_of_them, clock, tmp_path):
    workspace = all_of_them.open()
    all_of_them.close_page(workspace.token)
    clock.now += module.CLOSED_SECONDS - 1
    all_of_them.open(workspace.token)
    clock.now += 2
    all_of_them.sweep()
    assert len(folders(tmp_path)) == 1


def test_an_open_page_on_which_nobody_does_anything_is_emptied_after_a_while(
    all_of_them, clock, tmp_path
):
    workspace = all_of_them.open()
    for _ in range(40):
        clock.now += 100
        all_of_them.sweep()
        if folders(tmp_path):
            all_of_them.get(workspace.token)  # its sign of life
    assert folders(tmp_path) == []


def test_one_job_at_a_time(all_of_them, jobs):
    workspace = all_of_them.open()
    go = threading.Event()
    job = workspace.start(jobs, lambda _told: go.wait(5))
    with pytest.raises(InputError, match="running for you already"):
        workspace.start(jobs, lambda _told: None)
    go.set()
    assert job.wait(5)
    assert workspace.start(jobs, lambda _told: 7).wait(5)


def test_files_are_for_the_server_alone(all_of_them):
    folder = all_of_them.open().project.folder
    assert not stat.S_IMODE(folder.stat().st_mode) & 0o077
