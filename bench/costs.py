"""Measures the CPU time of one event in Redis and in the worker: `python -m bench.costs`, half a minute.

Redis: the batches are packed in advance, so that only the server works. `PUBLISH only` is a script with the same
arguments and the same publication that stores nothing. Copies go to sockets that subscribe to all channels, as gateways
do. Worker: a bus emits as fast as possible, with at most 10,000 waiting events.
"""

from __future__ import annotations

import hashlib
import selectors
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import hiredis
import redis

from bench.contenders.eventbus import Tick
from bench.payload import OPERATION, padding, user_name
from bench.redis_server import running_redis
from eventbus import BusSettings, Event, Receipt
from eventbus.backends.ports import Write
from eventbus.backends.redis.connections.resp import pack
from eventbus.backends.redis.scripts import pending
from eventbus.backends.redis.scripts.channel import publish
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Call, Script
from eventbus.bus import Bus
from eventbus.events.encoder import EmissionBuilder
from eventbus.protocol.cursor import Position

__all__ = ["main"]

_EVENTS: Final = 30_000
_ROUNDS: Final = 3
_IN_FLIGHT: Final = 512
_MAX_WAITING: Final = 10_000
_PAD: Final = padding("u00000")
_PUBLISH_ONLY: Final = """
local records = {}
for i = 4, #ARGV, 3 do
  records[#records + 1] = '17 ' .. ARGV[i + 1] .. '\\n{"offset":17,' .. ARGV[i + 2]
end
return redis.call('PUBLISH', ARGV[1], ARGV[2] .. ' 16\\n' .. table.concat(records, '\\n'))
"""


class _Shape(NamedTuple):
    users: int
    per_call: int


_COPIES: Final = (0, 1, 4, 16)
_SHAPES: Final = (_Shape(1000, 1), _Shape(1000, 2), _Shape(100, 5), _Shape(100, 20), _Shape(4, 128))


def _tick(number: int) -> Tick:
    return Tick(seq=number, at=time.time_ns() // 1000, pad=_PAD)


def _commands(shape: _Shape, floor: Script | None) -> Iterator[tuple[str, bytes]]:
    """Yield the source of a script and a packed call of it."""
    settings, keys = BusSettings(), Keys("eb")
    builder = EmissionBuilder(settings)
    for number in range(_EVENTS // shape.per_call):
        channel = f"user:{user_name(number % shape.users)}"
        topic = f"{channel}:operation:{OPERATION}"
        call = publish(settings, keys, Write(channel, [builder.build(topic, _tick(n)) for n in range(shape.per_call)]))
        call.script = floor or call.script
        yield call.script.source, pack(call.command)


def _replay(connection: socket.socket, commands: Sequence[bytes], in_flight: int) -> None:
    reader = hiredis.Reader()
    for start in range(0, len(commands), in_flight):
        some = commands[start : start + in_flight]
        connection.sendall(b"".join(some))
        for _ in some:
            while (reply := reader.gets()) is False:
                reader.feed(connection.recv(1 << 18))
            if isinstance(reply, Exception):
                raise reply


def _cpu_of_server(client: Any) -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])


def _read_all(connections: Sequence[socket.socket], until: threading.Event) -> None:
    with selectors.DefaultSelector() as ready:
        for connection in connections:
            ready.register(connection, selectors.EVENT_READ, connection)
        while not until.is_set():
            for key, _ in ready.select(0.1):
                key.data.recv(1 << 18)


@contextmanager
def _subscribed_sockets(address: tuple[str, int], shape: _Shape, copies: int) -> Iterator[None]:
    """Open sockets that subscribe to the channels of all users, and a thread that reads them."""
    keys, done = Keys("eb"), threading.Event()
    subscribe = pack(("SUBSCRIBE", *(keys.live(f"user:{user_name(number)}") for number in range(shape.users))))
    with ExitStack() as held:
        connections = [held.enter_context(socket.create_connection(address)) for _ in range(copies)]
        for connection in connections:
            connection.sendall(subscribe)
        reader = threading.Thread(target=_read_all, args=(connections, done))
        reader.start()
        try:
            yield
        finally:
            done.set()
            reader.join()


def _redis_cost(shape: _Shape, floor: Script | None = None, copies: int = 0) -> float:
    """Return microseconds of the server per event. A third of the batches are a warm-up."""
    sources, commands = zip(*_commands(shape, floor), strict=True)
    warm, in_flight = len(commands) // 3, max(1, _IN_FLIGHT // shape.per_call)
    with running_redis() as server:
        client: Any = redis.Redis.from_url(server.url)
        client.script_load(sources[0])
        address = "127.0.0.1", urlsplit(server.url).port or 0
        with _subscribed_sockets(address, shape, copies), socket.create_connection(address) as connection:
            _replay(connection, commands[:warm], in_flight)
            before = _cpu_of_server(client)
            _replay(connection, commands[warm:], in_flight)
            used = _cpu_of_server(client) - before
    return used * 1e6 / (len(commands) - warm) / shape.per_call


class _WorkerCost(NamedTuple):
    per_second: float
    emitting: float
    outbox: float
    redis: float
    per_call: float


def _worker_cost(users: int) -> _WorkerCost:
    names = [user_name(number) for number in range(users)]
    with running_redis() as server:
        client: Any = redis.Redis.from_url(server.url)
        bus = Bus(BusSettings(redis_url=server.url))

        def emit(events: int) -> None:
            waiting: deque[Receipt] = deque()
            for number in range(events):
                waiting.append(bus.emit(names[number % users], OPERATION, _tick(number)))
                if len(waiting) > _MAX_WAITING:
                    oldest = waiting.popleft()
                    while oldest.status == "waiting":
                        time.sleep(0.001)
            bus.flush(60)

        emit(5 * users)
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        begin = time.perf_counter(), time.thread_time(), time.process_time(), _cpu_of_server(client)
        emit(2 * _EVENTS)
        end = time.perf_counter(), time.thread_time(), time.process_time(), _cpu_of_server(client)
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"] - calls
        bus.close()
    wall, emitting, process, of_redis = (b - a for a, b in zip(begin, end, strict=True))
    per_event = 1e6 / (2 * _EVENTS)
    rest = (process - emitting) * per_event
    return _WorkerCost(2 * _EVENTS / wall, emitting * per_event, rest, of_redis * per_event, 2 * _EVENTS / calls)


class _Acknowledged(Event, name="bench.acknowledged", deliver="ack"):
    seq: int = 0


class _PendingCosts(NamedTuple):
    """Microseconds of the server per event, by what is done with it."""

    publish: float
    fetch: float
    in_order: float
    out_of_order: float
    by_position: float
    full: float
    purge: float


def _pending_costs(users: int, per_call: int) -> _PendingCosts:
    """Publish, fetch and acknowledge events of many users, then push events out of full lanes and purge them."""
    settings, keys = BusSettings(pending_limit=per_call), Keys("eb")
    builder = EmissionBuilder(settings)
    channels = [f"user:{user_name(number)}" for number in range(users)]
    counter = iter(range(1 << 60))

    def publications() -> tuple[list[list[str]], list[Call[Any]]]:
        """Make one publication for each user, in the order of the channels. Returns also the events' ids."""
        ids: list[list[str]] = []
        calls: list[Call[Any]] = []
        for channel in channels:
            topic = f"{channel}:operation:{OPERATION}"
            emissions = [builder.build(topic, _Acknowledged(seq=next(counter))) for _ in range(per_call)]
            ids.append([emission.id for emission in emissions])
            calls.append(publish(settings, keys, Write(channel, emissions)))
        return ids, calls

    def acks(ids: Sequence[Sequence[str]]) -> list[Call[Any]]:
        """Acknowledge each event with a separate call, as a page does."""
        pairs = zip(channels, ids, strict=True)
        return [pending.ack(settings, keys, channel, [id_]) for channel, some in pairs for id_ in some]

    with running_redis() as server, socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0)) as line:
        client: Any = redis.Redis.from_url(server.url)

        def cost(calls: Sequence[Call[Any]]) -> float:
            for source in {call.script.source for call in calls}:
                client.script_load(source)
            before = _cpu_of_server(client)
            _replay(line, [pack(call.command) for call in calls], 64)
            return (_cpu_of_server(client) - before) * 1e6 / users / per_call

        ids, first = publications()
        cost(first)
        cost(acks(ids))
        ids, again = publications()
        published = cost(again)
        fetched = cost([pending.fetch(settings, keys, channel, 1 << 20) for channel in channels])
        in_order = cost(acks(ids))
        ids, again = publications()
        cost(again)
        out_of_order = cost(acks([list(reversed(some)) for some in ids]))
        _, again = publications()
        cost(again)
        epochs = [client.hget(keys.channel(channel)[0], "epoch").decode() for channel in channels]
        end = [Position(epoch, 4 * per_call) for epoch in epochs]
        pairs = zip(channels, end, strict=True)
        by_position = cost([pending.ack_upto(settings, keys, channel, here) for channel, here in pairs])
        ids, again = publications()
        cost(again)
        _, again = publications()
        full = cost(again)
        pairs2 = zip(channels, ids, strict=True)
        purged = cost([pending.purge(settings, keys, channel, some) for channel, some in pairs2])
    return _PendingCosts(published, fetched, in_order, out_of_order, by_position, full, purged)


def _print_pending_costs() -> None:
    print("\nRedis, us of CPU per event with an acknowledgement, and what happens to the event")
    titles = [title.replace("_", " ") for title in _PendingCosts._fields]
    print(" " * 24 + "".join(f"{title:>14}" for title in titles))
    for users, per_call in ((1000, 1), (1000, 8), (100, 100)):
        rounds = [_pending_costs(users, per_call) for _ in range(_ROUNDS)]
        costs = [statistics.median(column) for column in zip(*rounds, strict=True)]
        print(f"{users:5} users, {per_call:3} a call    " + "".join(f"{cost:14.2f}" for cost in costs))


def main() -> None:
    """Measure and print medians over several rounds."""
    floor = Script(_PUBLISH_ONLY, hashlib.sha1(_PUBLISH_ONLY.encode(), usedforsecurity=False).hexdigest())
    print("Redis, us of CPU per event    log, ids, offset   PUBLISH only")
    for shape in _SHAPES:
        costs = [statistics.median(_redis_cost(shape, script) for _ in range(_ROUNDS)) for script in (None, floor)]
        print(f"{shape.users:5} users, {shape.per_call:3} a call {costs[0]:24.1f}{costs[1]:15.1f}")
    print("\nRedis, us of CPU per event, with copies to" + "".join(f"{copies:7}" for copies in _COPIES) + "   gateways")
    for shape in _SHAPES[:1] + _SHAPES[2:]:
        costs = [statistics.median(_redis_cost(shape, None, copies) for _ in range(_ROUNDS)) for copies in _COPIES]
        print(f"{shape.users:5} users, {shape.per_call:3} a call {'':20}" + "".join(f"{cost:7.1f}" for cost in costs))
    print("\nWorker, flat out   events/s   us of CPU per event: task   outbox's thread   Redis   events a call")
    for users in (1, 100, 1000):
        rounds = [_worker_cost(users) for _ in range(_ROUNDS)]
        rate, emitting, outbox, of_redis, per_call = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{users:5} users {rate:16,.0f} {emitting:26.1f}{outbox:18.1f}{of_redis:8.1f}{per_call:16.1f}")
    _print_pending_costs()


if __name__ == "__main__":
    main()
