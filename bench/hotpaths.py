"""The hot paths as fixed loops: no server, no socket, no thread, the same work in each run.

`python -m bench.hotpaths MARKERS` runs each loop once between the markers of `callgrind/markers.c`. `check.py` runs it
under callgrind.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Final

from bench.payload import NAME, OPERATION, padding, user_name
from eventbus import BusSettings, Event
from eventbus.backends.memory.adapters import MemoryBroker, MemoryReader, MemorySubscriber
from eventbus.backends.ports import Write
from eventbus.backends.redis.connections.resp import pack
from eventbus.backends.redis.scripts.channel import publish
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.bus import Bus
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.flow.priority_queue import ConflatingPriorityQueue
from eventbus.outbox.entries import Entry, group
from eventbus.outbox.outbox import Outbox
from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History
from eventbus.protocol.records import join_records, parse_publication
from eventbus.protocol.recovery import resume
from webui_adapter.access.authenticator import Credentials
from webui_adapter.access.authoriser import by_claim
from webui_adapter.access.principal import Principal
from webui_adapter.channels.hub import Hub
from webui_adapter.context import BackendPorts
from webui_adapter.gateway.build import build_gateway
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.protocol.websocket_frames import text_frame
from webui_adapter.session.output import Output
from webui_adapter.session.session import Session
from webui_adapter.session.subscriptions import Subscriptions
from webui_adapter.settings import GatewaySettings
from webui_adapter.transports.access import AcceptedHandshake
from webui_adapter.transports.encoders import FRAME_ENCODER
from webui_adapter.transports.websocket_direct import DirectConnection

__all__ = ["CALIBRATION", "EVENTS", "PATHS", "HotTick", "loops"]

EVENTS: Final = 2_000
"""Number of events in each loop."""

CALIBRATION: Final = "calibration"
_USERS: Final = 100
_SESSIONS: Final = 10
_IN_A_PUBLICATION: Final = 10
_IN_A_TURN: Final = 10
_AT: Final = 1_790_000_000_123_456
_CHANNEL: Final = "user:u00000"

Loop = Callable[[], object]


class HotTick(Event, name=f"{NAME}.hot"):
    """The event of the benchmark."""

    seq: int
    at: int
    pad: str


class _FixedClock:
    def now(self) -> float:
        return 1_000.0

    def wall(self) -> float:
        return _AT / 1e6

    def server_ms(self) -> int:
        return _AT // 1000


class _IdleOutbox(Outbox):
    """An outbox whose thread does not start. Callgrind would count its instructions too."""

    def _begin(self) -> None:
        super()._begin()
        self._thread._locked_start = lambda: None  # type: ignore[method-assign] # noqa: SLF001


class _DiscardTransport(asyncio.Transport):
    """A socket that discards and counts the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)

    def set_protocol(self, _: asyncio.BaseProtocol) -> None:
        """No data arrives."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The buffer is never full."""


def _topic(number: int) -> str:
    return f"user:{user_name(number % _USERS)}:operation:{OPERATION}"


def _emissions(builder: EmissionBuilder) -> list[Emission]:
    pad = padding("u00000")
    ticks = (HotTick(seq=n, at=_AT, pad=pad) for n in range(EVENTS))
    return [builder.build(_topic(tick.seq), tick, id_=f"id-{tick.seq}", now_us=_AT) for tick in ticks]


def _calibration() -> Loop:
    """The typical work of an interpreter. The other loops are compared with it."""

    class Thing:
        def __init__(self, name: str) -> None:
            self.name = name

    def loop() -> object:
        things = {f"{n:08x}": Thing(str(n)) for n in range(EVENTS)}
        return sum(len(thing.name) for key, thing in sorted(things.items()) if key in things)

    return loop


def _building() -> Loop:
    builder, pad = EmissionBuilder(BusSettings()), padding("u00000")
    return lambda: [builder.build(_topic(n), HotTick(seq=n, at=_AT, pad=pad)) for n in range(EVENTS)]


def _emitting() -> Loop:
    settings, pad = BusSettings(outbox_events=2 * EVENTS, redis_url="memory://", spool=False), padding("u00000")
    bus, builder = Bus(settings), EmissionBuilder(settings)
    users = [user_name(number) for number in range(_USERS)]

    def loop() -> object:
        assert bus.broker is not None
        with bus.diverted(builder, _IdleOutbox(settings, bus.publisher), bus.broker):
            for n in range(EVENTS):
                bus.emit(users[n % _USERS], OPERATION, HotTick(seq=n, at=_AT, pad=pad))
            assert bus.outbox.depth == EVENTS
        return bus

    return loop


def _queueing() -> Loop:
    emissions = _emissions(EmissionBuilder(BusSettings()))
    outbox: ConflatingPriorityQueue[Entry] = ConflatingPriorityQueue(EVENTS, 1 << 30)

    def loop() -> object:
        for emission in emissions:
            outbox.push(emission, 0)
        return outbox.pop(EVENTS, 1 << 30, 0)

    return loop


def _requesting() -> Loop:
    settings, keys = BusSettings(), Keys("eb")
    emissions = _emissions(EmissionBuilder(settings))

    def loop() -> object:
        requests, _ = group(emissions)
        calls = [publish(settings, keys, request, "e1") for request in requests if isinstance(request, Write)]
        return [pack(call.command) for call in calls], [call.decode(b"e1 1000 1 0") for call in calls]

    return loop


def _publications() -> list[bytes]:
    records = [
        b'%d %b\n{"offset":%d,%b' % (n, emission.header.encode(), n, emission.tail)
        for n, emission in enumerate(_emissions(EmissionBuilder(BusSettings())), 1)
    ]
    starts = range(0, EVENTS, _IN_A_PUBLICATION)
    return [join_records("e1", n, records[n : n + _IN_A_PUBLICATION]) for n in starts]


def _parsing() -> Loop:
    payloads = _publications()
    return lambda: [parse_publication(payload) for payload in payloads]


def _reader(hub: Hub, session: Session, user: str) -> Session:
    """Subscribe a session to its user's channel, up to live delivery."""
    channel_name = f"user:{user}"
    session.open(Principal(user, session.output.clock.wall() + 600, frozenset(), {}), "here")
    session.subscriptions.add(Subscribe(f"{channel_name}:*", None), 0)
    channel = hub.join(channel_name, session)
    reading = History(Position("e1", 0), 0, (), (), has_pending=False)
    if not channel.live:
        hub.recover(channel, reading, 0)
    subscription = session.subscriptions.channels[channel_name]
    assert subscription.recovery is not None
    session.subscriptions.replay(channel_name, resume(None, reading, subscription.recovery.buffered_live, 0), None)
    hub.mark_live(channel_name, session)
    session.output.out.clear()
    return session


def _fan_out() -> Loop:
    hub, settings = Hub(), GatewaySettings(jwt_secret="0" * 32)
    clock = _FixedClock()
    outputs = [Output(f"s-{n}", settings, FRAME_ENCODER, hub.dirty, Counter(), clock) for n in range(_SESSIONS)]
    sessions = [_reader(hub, Session(output, Subscriptions(output)), "u00000") for output in outputs]
    publications = [parse_publication(payload) for payload in _publications()]
    epochs = count(1)

    def loop() -> object:
        epoch, before = f"e{next(epochs)}", hub.deliveries
        for publication in publications:
            publication.epoch = epoch  # a new epoch starts again at offset 0
            hub.receive(_CHANNEL, publication)
        assert hub.deliveries - before == EVENTS * _SESSIONS
        for session in sessions:
            session.output.out.clear()
        return hub.deliveries

    return loop


def _direct_delivery() -> Loop:
    """From the payload of the subscriber to the bytes for the sockets: one event per user, in turns of ten."""
    keys, broker = Keys("eb"), MemoryBroker(BusSettings())
    settings = GatewaySettings(jwt_secret="0" * 32)
    gateway = build_gateway(
        settings, BackendPorts(MemorySubscriber(broker), MemoryReader(broker)), by_claim, clock=_FixedClock()
    )
    transports = [_DiscardTransport() for _ in range(_USERS)]
    for transport in transports:
        DirectConnection(gateway, transport, set()).begin(AcceptedHandshake(Credentials(), {}, (), None), b"", b"")
    for n, session in enumerate(gateway.sessions.values()):
        _reader(gateway.hub, session, user_name(n))
    gateway.flush()
    publications = []
    for n, emission in enumerate(_emissions(EmissionBuilder(BusSettings()))):
        offset = n // _USERS + 1
        record = b'%d %b\n{"offset":%d,%b' % (offset, emission.header.encode(), offset, emission.tail)
        publications.append((keys.live(emission.channel).encode(), b"%d\n" % (offset - 1) + record))
    epochs = count(1)

    def loop() -> object:
        epoch, before = b"e%d " % next(epochs), gateway.hub.deliveries  # a new epoch starts again at offset 0
        for n, (live, rest) in enumerate(publications, 1):
            gateway.listener.received(keys.channel_of_live(live), epoch + rest)
            if n % _IN_A_TURN == 0:
                gateway.listener.turn_ended()
        assert gateway.hub.deliveries - before == EVENTS
        assert all(transport.written for transport in transports)
        return gateway

    return loop


def _framing() -> Loop:
    events = [record.event for payload in _publications() for record in parse_publication(payload).records]
    return lambda: [text_frame(event) for event in events]


PATHS: Final[dict[str, Callable[[], Loop]]] = {
    CALIBRATION: _calibration,
    "emission building": _building,
    "emit in a task": _emitting,
    "outbox push and pop": _queueing,
    "requests for Redis": _requesting,
    "record parsing": _parsing,
    "hub to ten sessions": _fan_out,
    "one's event to the socket": _direct_delivery,
    "frame building": _framing,
}


def loops() -> dict[str, Loop]:
    """Return a new loop for each path, with its data prepared."""
    return {name: make() for name, make in PATHS.items()}


def main(markers: str) -> None:
    """Run each loop once as a warm-up and once between markers."""
    library = ctypes.CDLL(markers)
    gc.disable()
    for loop in loops().values():
        loop()
    for name, loop in loops().items():
        library.loop_begin()
        loop()
        library.loop_end(name.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
