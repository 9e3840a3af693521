"""Calls over one connection: whose answer is whose, when a call has waited long enough, and what comes after a loss."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import hiredis
import pytest
import uvloop

from eventbus import BusSettings
from eventbus.backends.redis.connections.errors import ScriptUnknown, classify
from eventbus.backends.redis.connections.pipeline import Pipeline
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.script import Call, Script
from eventbus.errors import NotPermitted, Refused, Unavailable


@pytest.fixture
async def pipeline(bus_settings: BusSettings) -> AsyncIterator[Pipeline]:
    pipeline = Pipeline(bus_settings)
    yield pipeline
    await pipeline.aclose()


class Server:
    """A server that answers when the test says so."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                self.reads.append(data)
        writer.close()

    def say(self, data: bytes) -> None:
        self.writers[-1].write(data)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def scripted(**given: Any) -> AsyncIterator[tuple[Server, Pipeline]]:
    """A pipeline towards such a server."""
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    pipeline = Pipeline(
        BusSettings(redis_url=f"redis://127.0.0.1:{port}/0", socket_timeout=0.3), most_waiting=given.pop("most", 100)
    )
    try:
        yield server, pipeline
    finally:
        await pipeline.aclose()
        for writer in server.writers:
            writer.close()
        listening.close()


async def test_each_call_gets_its_own_answer(pipeline: Pipeline) -> None:
    answers = await asyncio.gather(*(pipeline.execute(("ECHO", str(n))) for n in range(500)))
    assert answers == [str(n).encode() for n in range(500)]


async def test_the_reply_of_a_cancelled_call_is_dropped(pipeline: Pipeline) -> None:
    """CVE-2023-28858: in redis-py the next call got it."""
    await pipeline.execute(("PING",))
    for moment in range(4):
        secret = asyncio.create_task(pipeline.execute(("ECHO", "secret")))
        for _ in range(moment):
            await asyncio.sleep(0)
        secret.cancel()
        assert await pipeline.execute(("ECHO", f"mine {moment}")) == f"mine {moment}".encode()
        assert secret.cancelled() or secret.done()


async def test_a_cancelled_call_that_was_sent_keeps_its_place() -> None:
    async with scripted() as (server, pipeline):
        secret = asyncio.create_task(pipeline.execute(("ECHO", "secret")))
        await server.until(lambda: b"secret" in b"".join(server.reads))
        secret.cancel()
        mine = asyncio.create_task(pipeline.execute(("ECHO", "mine")))
        await server.until(lambda: b"mine" in b"".join(server.reads))
        server.say(b"$6\r\nsecret\r\n$4\r\nmine\r\n")
        assert await mine == b"mine"


async def test_a_cancelled_call_does_not_end_the_connecting_of_others(pipeline: Pipeline) -> None:
    first, second = (asyncio.create_task(pipeline.execute(("ECHO", name))) for name in ("one", "two"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"two"


async def test_all_calls_of_a_turn_are_one_write() -> None:
    async with scripted() as (server, pipeline):
        first = asyncio.create_task(pipeline.execute(("PING",)))
        await server.until(lambda: server.reads)
        server.say(b"+PONG\r\n")
        await first
        calls = asyncio.gather(*(pipeline.execute(("PING",)) for _ in range(50)))
        await server.until(lambda: b"".join(server.reads).count(b"PING") == 51)
        assert len(server.reads) == 2
        server.say(b"+PONG\r\n" * 50)
        assert await calls == [b"PONG"] * 50


async def test_a_silent_server_does_not_hold_its_callers() -> None:
    async with scripted() as (server, pipeline):
        calls = [asyncio.create_task(pipeline.execute(("PING",))) for _ in range(3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        again = asyncio.create_task(pipeline.execute(("ECHO", "again")))
        await server.until(lambda: b"again" in b"".join(server.reads))
        assert server.connections == 2, "the old one may still send replies without a waiting call"
        server.say(b"$5\r\nagain\r\n")
        assert await again == b"again"


async def test_a_server_that_is_slow_but_speaks_is_waited_for() -> None:
    async with scripted() as (server, pipeline):
        call = asyncio.create_task(pipeline.execute(("GET", "large")))
        await server.until(lambda: server.reads)
        server.say(b"$5\r\n")
        for byte in b"large":
            await asyncio.sleep(0.15)
            server.say(bytes((byte,)))
        server.say(b"\r\n")
        assert await call == b"large"


def test_a_busy_event_loop_is_no_silent_server() -> None:
    """On both event loops: whichever looks at its sockets after its timers would end the connection here."""

    async def busy() -> None:
        async with scripted() as (server, pipeline):
            call = asyncio.create_task(pipeline.execute(("PING",)))
            await server.until(lambda: server.reads)
            server.say(b"+PONG\r\n")
            time.sleep(0.5)  # noqa: ASYNC251 - that is what is tested
            assert await call == b"PONG"

    for run in (asyncio.run, uvloop.run):
        run(busy())


async def test_a_lost_connection_fails_what_waits_and_is_made_again(pipeline: Pipeline) -> None:
    number = await pipeline.execute(("CLIENT", "ID"))
    blocked = asyncio.create_task(pipeline.execute(("BLPOP", "no-such-list", 1)))
    await asyncio.sleep(0)
    other = Pipeline(pipeline._settings)
    await other.execute(("CLIENT", "KILL", "ID", number))
    with pytest.raises(Unavailable):
        await blocked
    assert await pipeline.execute(("CLIENT", "ID")) != number
    await other.aclose()


async def test_no_server_is_unavailable_for_all_who_ask() -> None:
    pipeline = Pipeline(BusSettings(redis_url="redis://127.0.0.1:1/0"))
    answers = await asyncio.gather(*(pipeline.execute(("PING",)) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)
    await pipeline.aclose()


async def test_an_answer_that_is_none_ends_the_connection() -> None:
    for wrong in (b"+PONG\r\n+PONG\r\n", b"nonsense\r\n"):
        async with scripted() as (server, pipeline):
            call = asyncio.create_task(pipeline.execute(("PING",)))
            await server.until(lambda server=server: server.reads)
            server.say(wrong)
            with contextlib.suppress(Unavailable):
                assert await call == b"PONG"
            after = asyncio.create_task(pipeline.execute(("PING",)))
            await server.until(lambda server=server: server.connections == 2)
            after.cancel()


async def test_calls_beyond_the_maximum_fail_immediately() -> None:
    async with scripted(most=2) as (server, pipeline):
        waiting = [asyncio.create_task(pipeline.execute(("PING",))) for _ in range(2)]
        await server.until(lambda: b"".join(server.reads).count(b"PING") == 2)
        with pytest.raises(Unavailable, match="2 calls wait"):
            await pipeline.execute(("PING",))
        server.say(b"+PONG\r\n" * 2)
        assert await asyncio.gather(*waiting) == [b"PONG", b"PONG"]


async def test_the_database_of_the_url_is_the_one_that_is_used(bus_settings: BusSettings) -> None:
    other = bus_settings.model_copy(update={"redis_url": bus_settings.redis_url.rpartition("/")[0] + "/7"})
    here, there = Pipeline(bus_settings), Pipeline(other)
    key = f"{bus_settings.key_prefix}:where"
    await there.execute(("SET", key, "there", "EX", 60))
    assert await here.execute(("GET", key)) is None
    assert await there.execute(("GET", key)) == b"there"
    await here.aclose()
    await there.aclose()


async def test_a_wrong_password_is_reported(bus_settings: BusSettings) -> None:
    url = bus_settings.redis_url.replace("redis://", "redis://unknown:wrong@")
    pipeline = Pipeline(bus_settings.model_copy(update={"redis_url": url}))
    with pytest.raises(Unavailable, match="WRONGPASS"):
        await pipeline.execute(("PING",))
    await pipeline.aclose()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOSCRIPT No matching script", ScriptUnknown),
        ("LOADING Redis is loading the dataset in memory", Unavailable),
        ("OOM command not allowed when used memory > 'maxmemory'", Unavailable),
        ("READONLY You can't write against a read only replica", Unavailable),
        ("MISCONF Errors writing to the AOF file", Unavailable),
        ("BUSY Redis is busy running a script", Unavailable),
        ("WRONGTYPE Operation against a key", Refused),
        ("ERR user_script:12: attempt to compare nil with number script: f00, on @user_script:12.", Refused),
        ("ERR Error running script (call to f_0): @user_script:1: @user_script: 1: WRONGTYPE Operation", Refused),
        (
            "ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM command not allowed",
            Unavailable,
        ),
        ("READONLY You can't write against a read only replica. script: f00, on @user_script:1.", Unavailable),
        ("ERR unknown command 'EVALSHA'", Unavailable),
        ("NOPERM User default has no permissions to run the 'evalsha' command", NotPermitted),
        ("NOAUTH Authentication required.", Unavailable),
        ("MOVED 11289 127.0.0.1:7001", Unavailable),
        ("ASK 11289 127.0.0.1:7001", Unavailable),
        ("CROSSSLOT Keys in request don't hash to the same slot", Unavailable),
        (
            "ERR Script attempted to access a non local key in a cluster node script: f00, on @user_script:1.",
            Unavailable,
        ),
        ("SOMETHING that no server replies today", Unavailable),
    ],
)
def test_what_is_worth_another_try(text: str, kind: type[Exception]) -> None:
    assert type(classify(hiredis.ReplyError(text))) is kind


async def test_a_script_that_the_server_lost_is_loaded_once_for_all(bus_settings: BusSettings) -> None:
    reader = RedisReader(bus_settings)
    source = f"return ARGV[1] -- {bus_settings.key_prefix}"
    sha = (await reader.execute("SCRIPT", "LOAD", source)).decode()
    await reader.execute("SCRIPT", "FLUSH", "SYNC")
    before = await loads(reader)
    calls = (reader.run(Call(Script(source, sha), (), (n,), int)) for n in range(20))
    assert await asyncio.gather(*calls) == list(range(20))
    assert await loads(reader) - before == 1
    await reader.aclose()


async def loads(reader: RedisReader) -> int:
    """How many scripts the server was ever given by SCRIPT LOAD."""
    stats = (await reader.execute("INFO", "commandstats")).decode()
    # Before Redis 7, SCRIPT is one line for all its subcommands.
    names = ("cmdstat_script|load:", "cmdstat_script:")
    line = next((line for line in stats.splitlines() if line.startswith(names)), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])
