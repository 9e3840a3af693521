"""The deadlines of a session: token, expiry, silence, a socket that takes nothing. Time is moved by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.webui_adapter.parts import ManualClock, frames_of, new_session, settings
from webui_adapter.access.principal import Principal
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.output import Output
from webui_adapter.session.session import Session
from webui_adapter.session.states import State
from webui_adapter.session.subscriptions import Subscriptions
from webui_adapter.transports.encoders import FRAME_ENCODER

LIMITS = {"stuck_after": 30.0, "heartbeat_interval": 20.0, "heartbeat_timeout": 10.0, "auth_deadline": 5.0}


def opened(life: float = 600.0) -> tuple[Session, ManualClock]:
    clock = ManualClock()
    output = Output("s-1", settings(**LIMITS), FRAME_ENCODER, [], Counter(), clock)
    session = Session(output, Subscriptions(output))
    session.open(Principal("42", clock.wall() + life, frozenset(), {}), "here")
    return session, clock


def code(session: Session) -> CloseCode | None:
    return session.output.close_code


def test_a_socket_that_takes_nothing_is_closed_in_time_and_not_before() -> None:
    session, clock = opened()
    clock.at += 1000
    session.next_ping = clock.at + 1000
    session.expires = clock.at + 10_000
    session.output.pause_writing()
    session.tick(clock.at)
    assert code(session) is None, "it has paused just now"
    clock.at += 29
    session.output.pause_writing()
    due, _ = session.tick(clock.at)
    assert (code(session), due) == (None, clock.at + 1), "since it first paused"
    clock.at += 1
    session.tick(clock.at)
    assert code(session) is CloseCode.TOO_SLOW


def test_a_close_behind_bytes_that_are_not_taken_is_flushed_too() -> None:
    """The flush sets the deadline of the close. Without one, the next ping would end the connection."""
    session, _ = opened()
    assert session.output.out, "the greeting waits"
    session.output.dirty.clear()
    session.close(CloseCode.DRAIN, "the gateway shuts down")
    assert session.output.dirty == [session.output]


def test_a_socket_that_takes_again_is_not_stuck() -> None:
    session, clock = opened()
    session.next_ping = clock.at + 1000
    session.output.pause_writing()
    clock.at += 20
    session.output.resume_writing(1_000)
    clock.at += 20
    due, _ = session.tick(clock.at)
    assert (code(session), due) == (None, clock.at + 30)
    session.output.pause_writing()
    clock.at += 20
    session.tick(clock.at)
    assert code(session) is None


def test_a_ping_is_due_and_its_answer_too() -> None:
    session, clock = opened()
    session.next_ping = clock.at + 20
    assert session.tick(clock.at) == (clock.at + 20, False)
    clock.at += 20
    due, ping = session.tick(clock.at)
    assert ping
    assert session.tick(clock.at + 5)[1] is False, "one at a time"
    session.tick(clock.at + 9.5)
    assert code(session) is None
    session.pong()
    session.tick(clock.at + 10)
    assert code(session) is None
    clock.at += 20
    assert session.tick(clock.at)[1]
    due, _ = session.tick(clock.at)
    assert due == clock.at + 10
    session.tick(clock.at + 10)
    assert code(session) is CloseCode.NO_PONG


def test_a_token_ends_the_session_with_it() -> None:
    session, clock = opened(life=15.0)
    session.next_ping = clock.at + 1000
    due, _ = session.tick(clock.at)
    assert due == pytest.approx(clock.at + 15)
    session.tick(clock.at + 14.9)
    assert code(session) is None
    session.tick(clock.at + 15.1)
    assert code(session) is CloseCode.TOKEN_EXPIRED


def test_a_session_without_a_token_ends_soon() -> None:
    session = new_session(user=None, auth_deadline=5.0)
    assert session.tick(session.opened + 4.9) == (session.opened + 5, False)
    assert code(session) is None
    session.tick(session.opened + 5)
    assert code(session) is CloseCode.NO_TOKEN


def test_the_greeting_names_the_interval_of_the_pings() -> None:
    session, _ = opened()
    (hello,) = frames_of(session)
    assert (hello["type"], hello["data"]["ping_ms"]) == ("bus.hello", 20_000)


def test_the_end_of_a_session_ends_what_waits_for_an_idle_moment() -> None:
    session, _ = opened()
    called: list[str] = []
    session.output.pause_writing()
    session.output.call_when_idle(lambda: called.append("later"))
    assert called == []
    session.enter(State.CLOSED)
    assert called == ["later"], "who waited for it goes on"
    assert session.output.closed
