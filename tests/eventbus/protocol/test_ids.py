"""Ids: UUIDv7, ascending whatever the clock does, different in parent and child."""

from __future__ import annotations

import os
import uuid

from hypothesis import given
from hypothesis import strategies as st

from eventbus.protocol.ids import _Sequence, event_id
from eventbus.protocol.topics import check_id


def test_an_id_is_a_uuid_of_version_7_and_a_well_formed_name():
    made = uuid.UUID(event_id())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert check_id(str(made), "id") == str(made)


def test_an_id_begins_with_the_time_of_the_clock():
    sequence = _Sequence()
    for now in (1_000_000_000_000, 1_000_000_000_001, 1_000_000_007_000):
        assert uuid.UUID(sequence.next(now)).int >> 80 == now


@given(st.lists(st.integers(1_000_000_000_000, 1_000_000_000_100), min_size=2, max_size=200))
def test_ids_ascend_even_when_the_clock_steps_back(times):
    sequence = _Sequence()
    ids = [sequence.next(now) for now in times]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_a_forked_child_makes_other_ids():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, event_id().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 36).decode()[-12:] != event_id()[-12:]
