"""Commands: what is read, what is refused and with which code. And the session's table of states."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.errors import InvalidCursor
from eventbus.protocol.cursor import parse_cursor
from eventbus.protocol.topics import MAX_TOPIC, channel_of
from tests.webui_adapter.parts import ManualClock, frames_of, new_session
from webui_adapter.access.principal import Principal
from webui_adapter.errors import CommandRefused
from webui_adapter.protocol.commands import (
    Auth,
    Cancel,
    ListOperations,
    Ping,
    ShowOperation,
    Subscribe,
    Unsubscribe,
    parse_command,
)
from webui_adapter.session.states import State

GOLDEN = json.loads((Path(__file__).parents[2] / "wire" / "commands.json").read_text())


TYPES = {
    "auth": Auth,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "ping": Ping,
    "operations": ListOperations,
    "operation": ShowOperation,
    "cancel": Cancel,
}


def refused(text: str | bytes) -> CommandRefused:
    with pytest.raises(CommandRefused) as caught:
        parse_command(text)
    return caught.value


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden_commands(case: dict[str, Any]) -> None:
    if case["parsed"] is None:
        assert refused(case["frame"]).code == case["error"]
        return
    parsed = case["parsed"]
    command = parse_command(case["frame"])
    assert type(command) is TYPES[parsed["do"]]
    assert command.ref == parsed.get("ref")
    if isinstance(command, ListOperations):
        assert (command.limit, command.states) == (parsed.get("limit", 50), tuple(parsed.get("state", ())))
        assert command.user == parsed.get("user")
    if isinstance(command, ShowOperation | Cancel):
        assert (command.operation, command.user) == (parsed["operation"], parsed.get("user"))
    if isinstance(command, Auth):
        assert command.token == parsed["token"]
        assert command.topics == tuple(parsed.get("topics", ()))
        assert ",".join(f"{channel}={position}" for channel, position in command.cursor.items()) == parsed.get(
            "cursor", ""
        )
    if isinstance(command, Subscribe):
        assert command.topic == parsed["topic"]
        assert (None if command.since is None else str(command.since)) == parsed.get("from")


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("", "bad_json", None),
        ("null", "bad_json", None),
        ('"ping"', "bad_json", None),
        (b"\xff\xfe\xfd", "bad_json", None),
        ("[" * 50_000, "bad_json", None),
        ('{"do":' * 20_000, "bad_json", None),
        ('{"do":"ping","ref":NaN}', "bad_json", None),
        ('{"do":"ping","x":-Infinity}', "bad_json", None),
        ('{"do":"ping","ref":' + "9" * 5000 + "}", "bad_json", None),
        ("{}", "bad_command", "do"),
        ('{"do":["ping"]}', "bad_command", "do"),
        ('{"do":"auth"}', "bad_command", "token"),
        ('{"do":"auth","token":1}', "bad_command", "token"),
        ('{"do":"auth","token":"t","cursor":7}', "bad_command", "cursor"),
        ('{"do":"auth","token":"t","cursor":"user:1=x"}', "bad_command", "cursor"),
        ('{"do":"auth","token":"t","topics":"user:1:*"}', "bad_command", "topics"),
        ('{"do":"auth","token":"t","topics":[7]}', "bad_topic", "topic"),
        ('{"do":"subscribe","topic":"user:1:*","from":1.5}', "bad_command", "from"),
        ('{"do":"subscribe","topic":"user:1:*","from":"17"}', "bad_command", "from"),
        ('{"do":"subscribe","topic":"user:*:x"}', "bad_topic", "topic"),
        ('{"do":"subscribe","topic":"user:1:a*"}', "bad_topic", "topic"),
        ('{"do":"subscribe","topic":"user:1:[a-z]"}', "bad_topic", "topic"),
        ('{"do":"subscribe","topic":"user:1:a b"}', "bad_topic", "topic"),
        ('{"do":"subscribe","topic":"user:1:\\ud800"}', "bad_topic", "topic"),
        ('{"do":"subscribe","topic":"user:1:' + "a:" * 9 + 'a"}', "bad_topic", "topic"),
        ('{"do":"unsubscribe"}', "bad_topic", "topic"),
        ('{"do":"cancel"}', "bad_command", "operation"),
        ('{"do":"cancel","operation":9}', "bad_command", "operation"),
        ('{"do":"cancel","operation":"9","user":"a:b"}', "bad_command", "user"),
        ('{"do":"operation","operation":["9"]}', "bad_command", "operation"),
        ('{"do":"operations","limit":0}', "bad_command", "limit"),
        ('{"do":"operations","limit":1.5}', "bad_command", "limit"),
        ('{"do":"operations","limit":true}', "bad_command", "limit"),
        ('{"do":"operations","state":"running"}', "bad_command", "state"),
        ('{"do":"operations","state":[7]}', "bad_command", "state"),
        ('{"do":"operations","state":[["queued"]]}', "bad_command", "state"),
        ('{"do":"operations","user":7}', "bad_command", "user"),
    ],
)
def test_a_refusal_names_code_and_field(text: str | bytes, code: str, field: str | None) -> None:
    error = refused(text)
    assert (error.code, error.field) == (code, field)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ('{"do":"subscribe","topic":"user:1:' + "a" * 129 + '"}', 128),
        ('{"do":"subscribe","topic":"user:1:' + "a:" * 9 + 'a"}', 8),
        ('{"do":"cancel","operation":"' + "a" * 129 + '"}', 128),
    ],
)
def test_a_refusal_for_a_length_says_the_limit(text: str, limit: int) -> None:
    assert refused(text).limit == limit


def test_long_topics_of_visitors_are_not_remembered() -> None:
    before = channel_of.cache_info().currsize
    for text in ("user:1:" + "a" * 50_000, "user:1:" + "a:" * 20_000 + "a"):
        error = refused(f'{{"do":"subscribe","topic":"{text}"}}')
        assert error.limit == MAX_TOPIC
        assert len(str(error)) < 200
    with pytest.raises(InvalidCursor):
        parse_cursor("user:1:" + "a" * 4_000 + "=0")
    assert channel_of.cache_info().currsize == before


@pytest.mark.parametrize("ref", ['"a"', "1", "-2", "1.5", '"' + "x" * 128 + '"'])
def test_a_refusal_has_the_ref_too(ref: str) -> None:
    assert parse_command(f'{{"do":"ping","ref":{ref}}}').ref == json.loads(ref)
    assert refused(f'{{"do":"dance","ref":{ref}}}').ref == json.loads(ref)


@pytest.mark.parametrize("ref", ["1e999", "true", "null", "[]", '{"a":1}', '"' + "x" * 129 + '"'])
def test_what_cannot_be_a_ref_is_none(ref: str) -> None:
    assert parse_command(f'{{"do":"ping","ref":{ref}}}').ref is None


@given(
    st.one_of(
        st.binary(),
        st.text(),
        st.recursive(st.none() | st.floats() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)).map(
            json.dumps
        ),
    )
)
def test_whatever_comes_is_read_or_refused(text: str | bytes) -> None:
    try:
        command = parse_command(text)
    except CommandRefused as error:
        json.dumps(error.data(), allow_nan=False)
    else:
        assert isinstance(command, Auth | Subscribe | Unsubscribe | Ping)


# --- the session around them -----------------------------------------------------------------------------------


def test_the_table_of_states() -> None:
    allowed = {
        (State.WAITING, State.OPEN),
        (State.WAITING, State.CLOSED),
        (State.OPEN, State.LEAVING),
        (State.OPEN, State.CLOSED),
        (State.LEAVING, State.CLOSED),
    }
    for before, after in product(State, State):
        session = new_session(user=None)
        session.state = before
        if (before, after) in allowed:
            session.enter(after)
            assert session.state is after
        else:
            with pytest.raises(AssertionError, match=f"from {before.name} to {after.name}"):
                session.enter(after)


def test_hello_comes_first_and_says_who_where_and_until_when() -> None:
    session = new_session(user=None, heartbeat_interval=25)
    session.open(Principal("42", session.output.clock.wall() + 600, frozenset(), {}), "gw-1")
    (hello,) = frames_of(session)
    assert hello["type"] == "bus.hello"
    assert hello["data"] == {
        "session": "s-1",
        "user": "42",
        "instance": "gw-1",
        "protocol": "eventbus.v1",
        "ping_ms": 25000,
        "expires": int((session.output.clock.wall() + 600) * 1000),
    }


def test_the_first_command_must_be_auth() -> None:
    session = new_session(user=None)
    assert session.receive('{"do":"ping","ref":1}') is None
    (error,) = frames_of(session)
    assert error["type"] == "bus.error"
    assert error["data"]["code"] == "unauthenticated"
    assert error["data"]["ref"] == 1
    assert session.output.close_code is None
    assert isinstance(session.receive('{"do":"auth","token":"t"}'), Auth)


def test_beyond_its_rate_a_session_receives_the_limit_and_when_to_try_again() -> None:
    session = new_session(message_rate_limit=10)
    clock = session.output.clock
    assert isinstance(clock, ManualClock)
    for _ in range(10):
        assert session.receive('{"do":"ping"}') is not None
    heard: list[Any] = []
    assert session.receive('{"do":"ping","ref":1}', heard.append) is None
    (error,) = frames_of(session)
    assert error["data"] == heard[0]
    assert error["data"]["code"] == "rate_limited"
    assert error["data"]["limit"] == 10
    assert error["data"]["ref"] == 1
    assert 95 <= error["data"]["retry_ms"] <= 105
    clock.at += error["data"]["retry_ms"] / 1000
    assert session.receive('{"do":"ping"}') is not None


def test_an_oversized_command_is_refused_with_the_limit() -> None:
    session = new_session(max_command_size=256)
    assert session.receive('{"do":"ping","x":"' + "x" * 256 + '"}') is None
    (error,) = frames_of(session)
    assert error["data"]["code"] == "too_large"
    assert error["data"]["limit"] == 256


def test_who_never_gets_the_form_right_is_closed() -> None:
    session = new_session(max_bad_commands=3)
    for expected in (None, None, 4502):
        session.receive("{")
        assert session.output.close_code == expected


def test_to_be_refused_for_its_rate_as_often_again_is_the_end() -> None:
    session = new_session(message_rate_limit=10, max_bad_commands=2)
    for i in range(20):
        session.receive('{"do":"ping"}')
        assert session.output.close_code is None, i
    session.receive('{"do":"ping"}')
    assert session.output.close_code == 4502


def test_a_session_that_is_always_a_little_too_fast_stays_open() -> None:
    session = new_session(message_rate_limit=10, max_bad_commands=2)
    clock = session.output.clock
    assert isinstance(clock, ManualClock)
    for _ in range(500):
        clock.at += 1 / 15
        session.receive('{"do":"ping"}')
    assert session.output.counters["refused.rate_limited"] > 100
    assert session.output.close_code is None


@pytest.mark.parametrize("code", ["forbidden", "too_many_topics", "rate_limited", "read_only"])
def test_ordinary_refusals_close_no_session(code: str) -> None:
    session = new_session(max_bad_commands=2)
    for _ in range(10):
        session.refuse(CommandRefused(code, "no"))
    assert session.output.close_code is None
    assert session.output.counters[f"refused.{code}"] == 10


def test_the_first_reason_to_close_stays() -> None:
    session = new_session()
    from webui_adapter.protocol.close_codes import CloseCode  # noqa: PLC0415 - read next to its use

    session.close(CloseCode.TOO_SLOW, "slow")
    session.close(CloseCode.DRAIN, "later")
    assert (session.output.close_code, session.output.close_reason) == (4001, "slow")
    assert session.output.dirty == [session.output] * session.output.dirty.count(session.output)


def test_deadlines() -> None:
    session = new_session(user=None, auth_deadline=5)
    assert session.tick(1004.9) == (1005, False)
    assert session.output.close_code is None
    session.tick(1005)
    assert session.output.close_code == 4101

    session = new_session()
    session.next_ping = 2000
    session.tick(1599)
    assert session.output.close_code is None
    session.tick(1600)
    assert session.output.close_code == 4100


def test_a_token_within_the_leeway_lasts_until_its_end() -> None:
    session = new_session(user=None, jwt_leeway=30)
    session.open(Principal("42", session.output.clock.wall() - 10, frozenset(), {}), "here")
    session.next_ping = 2000
    session.tick(1019)
    assert session.output.close_code is None
    session.tick(1020)
    assert session.output.close_code == 4100


def test_pings_and_a_peer_that_does_not_answer() -> None:
    session = new_session(heartbeat_interval=30, heartbeat_timeout=10, stuck_after=1000)
    session.next_ping = 1012
    assert session.tick(1011) == (1012, False)
    due, ping = session.tick(1012)
    assert ping
    assert due == 1022
    session.pong()
    due, ping = session.tick(1022)
    assert (due, ping) == (1042, False)
    assert session.tick(1042)[1]
    session.tick(1051.9)
    assert session.output.close_code is None
    session.tick(1052)
    assert session.output.close_code == 4002


def test_a_reader_that_takes_nothing_is_closed_in_time() -> None:
    session = new_session(heartbeat_interval=300, stuck_after=30)
    session.next_ping = 1250
    clock = session.output.clock
    assert isinstance(clock, ManualClock)
    due, _ = session.tick(1001)
    clock.at = 1002
    session.output.pause_writing()
    assert due <= 1032, "no check would come before it is late"
    due, _ = session.tick(due)
    session.tick(due)
    assert session.output.close_code == 4001
