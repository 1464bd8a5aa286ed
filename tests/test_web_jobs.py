# SPDX-License-Identifier: Apache-2.0
"""The queue behind the page: order, progress, cancelling, failing."""

from __future__ import annotations

import threading

import pytest
from waiting import until

from vinpaint.errors import InputError
from vinpaint.web.jobs import Jobs


@pytest.fixture
def jobs():
    jobs = Jobs(limit=3)
    yield jobs
    jobs.close()


class Gate:
    """Work that runs until it is let go."""

    def __init__(self):
        self.open = threading.Event()
        self.begun = threading.Event()

    def __call__(self, told):
        self.begun.set()
        while not self.open.wait(0.01):
            told("waiting at the gate", 1, 4)
        return "through"


def test_jobs_are_done_one_after_another_in_order(jobs):
    done = []
    submitted = [jobs.submit(lambda _, n=n: done.append(n)) for n in range(3)]
    assert all(job.wait(5) for job in submitted)
    assert done == [0, 1, 2]
    assert [job.state for job in submitted] == ["done"] * 3


def test_a_job_tells_how_far_it_is_and_how_many_are_ahead(jobs):
    gate = Gate()
    first, second, third = jobs.submit(gate), jobs.submit(Gate()), jobs.submit(lambda _: None)
    assert gate.begun.wait(5)
    until(lambda: first.total == 4)
    assert (first.phase, first.done, first.state) == ("waiting at the gate", 1, "running")
    assert [job.ahead for job in (first, second, third)] == [0, 1, 2]
    second.cancel()
    assert second.state == "cancelled"  # at once, though its turn has not come
    assert third.ahead == 1
    gate.open.set()
    assert third.wait(5)
    assert first.result == "through"


def test_cancelling_ends_what_runs_and_the_next_goes_on(jobs):
    gate = Gate()
    job, after = jobs.submit(gate), jobs.submit(lambda _: "after")
    assert gate.begun.wait(5)
    job.cancel()
    assert job.wait(5)
    assert job.state == "cancelled"
    assert after.wait(5)
    assert after.result == "after"


def test_a_failure_is_kept_and_the_next_goes_on(jobs):
    def fail(_told):
        raise OSError("the disk is full")

    job, after = jobs.submit(fail), jobs.submit(lambda _: "after")
    assert after.wait(5)
    assert (job.state, str(job.error)) == ("failed", "the disk is full")


def test_the_queue_has_an_end(jobs):
    gate = Gate()
    jobs.submit(gate)
    assert gate.begun.wait(5)
    for _ in range(3):
        jobs.submit(lambda _: None)
    with pytest.raises(InputError, match="The queue is full: 3 are waiting"):
        jobs.submit(lambda _: None)


def test_the_time_left_follows_from_the_pace(jobs, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("vinpaint.web.jobs.time.monotonic", lambda: now[0])
    begun, end = threading.Event(), threading.Event()

    def work(told):
        told("Filling", 0, 4)
        begun.set()
        end.wait(20)

    job = jobs.submit(work)
    assert begun.wait(5)
    assert job.seconds_left() is None  # too early to tell
    now[0] += 20
    job.told("Filling", 1, 4)
    assert job.seconds_left() == 60
    now[0] += 15
    assert job.seconds_left() == 45  # counts down until the next report
    now[0] += 100
    assert job.seconds_left() is None  # later than it should have been
    end.set()


def test_closing_cancels_all():
    jobs, gate = Jobs(limit=3), Gate()
    submitted = [jobs.submit(gate), jobs.submit(Gate())]
    assert gate.begun.wait(5)
    jobs.close()
    assert [job.state for job in submitted] == ["cancelled", "cancelled"]
