"""The pauses before restarts: by example and by property."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from webui_adapter.workers.place import WorkerPlace
from webui_adapter.workers.restarts import RestartPolicy


def test_a_crash_after_a_while_costs_no_pause():
    policy = RestartPolicy(steady=10)
    for now in range(0, 1000, 100):
        policy.started(now)
        assert policy.ended(now + 50) == 0


def test_a_worker_that_cannot_start_waits_longer_each_time():
    policy = RestartPolicy(steady=10, first=0.25, longest=10)
    pauses = []
    for now in range(9):
        policy.started(now)
        pauses.append(policy.ended(now + 0.5))
    assert pauses == [0, 0.25, 0.5, 1, 2, 4, 8, 10, 10]


@given(st.lists(st.floats(0, 100), max_size=50))
def test_a_pause_is_bounded_and_a_steady_run_ends_it(lives):
    policy = RestartPolicy(steady=10, first=0.25, longest=10)
    now = 0.0
    for life in lives:
        policy.started(now)
        now += life
        pause = policy.ended(now)
        assert 0 <= pause <= 10
        if life >= 10:
            assert pause == 0
        now += pause


def test_a_place_survives_the_command_line():
    place = WorkerPlace(2, 4, "::1", 8080, 8, "a folder")
    assert WorkerPlace.parse(place.text) == place
    assert list(place.siblings) == [1, 2, 3, 4]
