"""An application's own function says who connects: what it may do, and what the gateway makes of its mistakes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from eventbus.backends.revocations import end_sessions, revoke_token, revoke_tokens
from tests.webui_adapter.gateways import eventually
from tests.webui_adapter.world import PageLine, World, turns, world
from webui_adapter import Connection, Principal
from webui_adapter.access.authenticator import Credentials
from webui_adapter.errors import NotConfigured

SCOPE = {"type": "websocket", "path": "/", "headers": [(b"x-key", b"k")], "query_string": b"", "subprotocols": []}


class Application:
    """Answers what a test wants, when it wants it."""

    def __init__(self) -> None:
        self.asked: list[Connection] = []
        self.answer: Any = Principal("ann")
        self.running = 0
        self.most = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, connection: Connection) -> Principal | None:
        self.asked.append(connection)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(connection) if callable(self.answer) else self.answer


@pytest.fixture
async def app() -> Application:
    return Application()


@pytest.fixture
async def own(app: Application) -> AsyncIterator[World]:
    async with world(authenticate=app, authenticate_timeout=0.2, authenticate_calls=3) as found:
        yield found


def connect(own: World, token: str | None = None) -> PageLine:
    return own.connect_with(Credentials(token, dict(SCOPE)))


def of_token(known: str) -> Callable[[Connection], Principal | None]:
    return lambda connection: Principal("ann") if connection.token == known else None


async def test_it_sees_the_request_and_opens_the_session(own: World, app: Application) -> None:
    app.answer = Principal("ann", time.time() + 60)
    line = connect(own)
    await own.settled(line)
    (connection,) = app.asked
    assert (connection.headers["x-key"], connection.token) == ("k", None)
    (hello,) = line.page.data_of("bus.hello")
    assert hello["user"] == "ann"
    assert abs(hello["expires"] / 1000 - time.time() - 60) < 5


async def test_a_principal_without_an_end_lasts_as_long_as_a_session_may(own: World) -> None:
    line = connect(own)
    await own.settled(line)
    (hello,) = line.page.data_of("bus.hello")
    assert 0.9 * 86_400 - 60 < hello["expires"] / 1000 - time.time() <= 86_400


async def test_without_an_answer_the_first_message_may_bring_a_token(own: World, app: Application) -> None:
    app.answer = of_token("good")
    line = connect(own)
    await eventually(lambda: app.asked and not app.running, "the first answer")
    await turns()
    line.send("auth", token="good", cursor="user:ann=0")
    await own.settled(line)
    assert line.page.data_of("bus.subscribed")[0]["how"] == "resumed", "with the cursor of the message"
    assert [connection.token for connection in app.asked] == [None, "good"]


async def test_a_first_message_during_the_first_question_waits_for_its_end(own: World, app: Application) -> None:
    app.answer = of_token("good")
    app.open.clear()
    line = connect(own)
    await turns()
    line.send("auth", token="good")
    await turns()
    assert len(app.asked) == 1
    app.open.set()
    await own.settled(line)
    assert len(line.page.data_of("bus.hello")) == 1


async def test_a_token_for_a_session_that_a_cookie_has_opened_counts_as_a_fresh_one(
    own: World, app: Application
) -> None:
    app.open.clear()
    line = connect(own)
    await turns()
    line.send("auth", token="any", ref="r")
    app.open.set()
    await own.settled(line)
    await eventually(lambda: line.page.data_of("bus.ok"), "the answer")
    assert len(line.page.data_of("bus.hello")) == 1


async def test_a_token_that_it_does_not_know_is_refused(own: World, app: Application) -> None:
    app.answer = None
    line = connect(own, "unknown")
    await eventually(lambda: line.closed == 4500, "the refusal")
    assert own.gateway.counters["auth.refused"] == 1


@pytest.mark.parametrize(
    "answer",
    [LookupError("no database"), "ann", Principal, True],
    ids=["an exception", "a text", "a class", "a bool"],
)
async def test_its_failure_is_not_the_clients(own: World, app: Application, answer: Any) -> None:
    app.answer = answer if isinstance(answer, Exception) else (lambda _: answer)
    line = connect(own)
    await eventually(lambda: line.closed == 4004, "the close code")
    assert own.gateway.counters["auth.failed"] == 1
    assert "database" not in str(line.session.output.close_reason)


async def test_it_has_a_time_limit(own: World, app: Application) -> None:
    app.open.clear()
    line = connect(own)
    await eventually(lambda: line.closed == 4004, "the time limit")
    await eventually(lambda: not app.running, "the end of the call")
    assert own.gateway.counters["auth.failed"] == 1


async def test_few_calls_run_at_the_same_time(own: World, app: Application) -> None:
    lines = [connect(own) for _ in range(8)]
    await eventually(lambda: all(line.page.data_of("bus.hello") for line in lines), "all greetings")
    app.open.clear()
    for _ in range(2):
        connect(own)
    lines = [connect(own) for _ in range(6)]
    await eventually(lambda: all(line.closed for line in lines), "the ends")
    assert app.most == 3


@pytest.mark.parametrize("answer", [Principal("a b"), Principal("ann", float("nan")), Principal("ann", 5.0)])
async def test_a_principal_that_cannot_be_meant(own: World, app: Application, answer: Principal) -> None:
    app.answer = answer
    line = connect(own)
    await eventually(lambda: line.closed in (4100, 4500), "the refusal")


async def test_an_integer_may_name_the_user(own: World, app: Application) -> None:
    app.answer = Principal(42)  # type: ignore[arg-type]
    line = connect(own)
    await eventually(lambda: line.page.data_of("bus.hello"), "the greeting")
    assert line.page.data_of("bus.hello")[0]["user"] == "42"


async def test_a_client_that_leaves_during_the_question_opens_nothing(own: World, app: Application) -> None:
    app.open.clear()
    line = connect(own)
    await turns()
    own.gateway.disconnect(line.session, 1006)
    app.open.set()
    await eventually(lambda: not app.running, "the answer")
    await turns()
    assert not own.gateway.sessions
    assert not line.page.control_events


async def test_a_fresh_token_asks_again(own: World, app: Application) -> None:
    app.answer = lambda connection: {"bob": Principal("bob"), None: Principal("ann"), "ok": Principal("ann")}.get(
        connection.token
    )
    line = connect(own)
    await own.settled(line)
    line.send("auth", token="ok", ref="ok")
    await eventually(lambda: line.page.data_of("bus.ok"), "the answer")
    for token, code in (("bob", "forbidden"), ("unknown", "unauthenticated")):
        line.send("auth", token=token, ref=token)
        await eventually(lambda token=token: _error(line, token), "the refusal")
        assert _error(line, token) == code
    app.answer = LookupError()
    line.send("auth", token="ok", ref="broken")
    await eventually(lambda: _error(line, "broken"), "the refusal")
    assert _error(line, "broken") == "unavailable"
    assert line.closed is None


def _error(line: PageLine, ref: str) -> str | None:
    return next((str(error["code"]) for error in line.page.data_of("bus.error") if error["ref"] == ref), None)


async def test_one_fresh_token_is_checked_at_a_time(own: World, app: Application) -> None:
    line = connect(own)
    await own.settled(line)
    app.open.clear()
    line.send("auth", token="one", ref="one")
    await turns()
    line.send("auth", token="two", ref="two")
    assert _error(line, "two") == "unavailable"
    app.open.set()
    await eventually(lambda: line.page.data_of("bus.ok"), "the answer to the first")


async def test_a_revocation_ends_its_sessions(own: World, app: Application) -> None:
    monitor = own.gateway.revocation_monitor
    assert monitor is not None
    app.answer = Principal("ann", token_id="key-1")
    line, other = connect(own), connect(own)
    await own.settled(line)
    await monitor.revoke(revoke_token("key-1", "", "boss"))
    await eventually(lambda: (line.closed, other.closed) == (4102, 4102), "the end of both")
    app.answer = Principal("ann", issued=time.time() - 60)
    dated = connect(own)
    await own.settled(dated)
    await monitor.revoke(revoke_tokens("ann", time.time() - 30, "", "boss"))
    await eventually(lambda: dated.closed == 4102, "the end")
    app.answer = Principal("ann")
    line = connect(own)
    await own.settled(line)
    await monitor.revoke(end_sessions("ann", "", "boss"))
    await eventually(lambda: line.closed == 4102, "the end")


async def test_a_revocation_during_the_question_counts(own: World, app: Application) -> None:
    monitor = own.gateway.revocation_monitor
    assert monitor is not None
    app.answer = Principal("ann", token_id="key-1")
    app.open.clear()
    line = connect(own)
    await turns()
    await monitor.revoke(revoke_token("key-1", "", "boss"))
    await eventually(lambda: len(monitor.known) == 1, "the revocation")
    app.open.set()
    await eventually(lambda: line.closed == 4102, "the refusal")


async def test_a_revocation_between_the_check_and_the_session_counts(own: World, app: Application) -> None:
    """As when the answer of an event stream begins some turns after its request was checked."""
    monitor = own.gateway.revocation_monitor
    assert monitor is not None
    app.open.clear()
    line = connect(own)
    await monitor.revoke(revoke_token("key-1", "", "boss"))
    await eventually(lambda: len(monitor.known) == 1, "the revocation")
    own.gateway.authentication.admit(line.session, Principal("ann", token_id="key-1"), {}, ())
    own.gateway.flush()
    await eventually(lambda: line.closed == 4102, "the refusal")


async def test_a_gateway_that_shuts_down_opens_no_session(own: World, app: Application) -> None:
    app.open.clear()
    line = connect(own)
    await turns()
    own.gateway.drain.started = True
    app.open.set()
    await eventually(lambda: line.closed == 4000, "the close code")


def test_a_setting_names_it_or_a_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from webui_adapter import GatewaySettings, gateway_router  # noqa: PLC0415 - read next to its use

    for name in ("WEBUI_JWT_SECRET", "WEBUI_AUTHENTICATE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NotConfigured, match="WEBUI_JWT_SECRET"):
        gateway_router()
    with pytest.raises(NotConfigured, match=r"WEBUI_AUTHENTICATE='no\.such:thing'"):
        gateway_router(GatewaySettings(authenticate="no.such:thing"))
