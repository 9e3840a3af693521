"""The gateway's pure parts, assembled by hand: a manual clock, sessions without a transport, records."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

from eventbus.protocol.cursor import Position
from eventbus.protocol.history import History, LogEntry
from eventbus.protocol.policy import Keep
from eventbus.protocol.records import Publication, Record
from eventbus.protocol.recovery import resume
from eventbus.protocol.topics import channel_of
from tests.webui_adapter.page import Frame, Page
from webui_adapter.access.principal import Principal
from webui_adapter.channels.channel import Channel
from webui_adapter.channels.hub import Hub
from webui_adapter.context import GatewayContext
from webui_adapter.protocol.commands import Subscribe
from webui_adapter.session.connection import Encoder
from webui_adapter.session.output import Output
from webui_adapter.session.session import Session
from webui_adapter.session.subscriptions import Subscriptions
from webui_adapter.settings import GatewaySettings
from webui_adapter.transports.encoders import FRAME_ENCODER, TEXT_ENCODER
from webui_adapter.transports.encoders import SSE_ENCODER as EVENT_STREAM

__all__ = [
    "EVENT_STREAM",
    "FRAME_ENCODER",
    "TEXT_ENCODER",
    "ManualClock",
    "frames_of",
    "history",
    "new_context",
    "new_session",
    "publication",
    "record",
]

WALL = 1_790_000_000.0
USER = "user:42"
_ids = itertools.count()


class ManualClock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return WALL + self.at

    def server_ms(self) -> int:
        return int(self.wall() * 1000)


def settings(**given: Any) -> GatewaySettings:
    return GatewaySettings(jwt_secret="0123456789abcdef" * 2, **given)


def new_context(**given: Any) -> GatewayContext:
    """A context in which all is well and nothing is spawned or flushed, unless ``given`` says otherwise."""
    calm: dict[str, Any] = {"spawn": lambda _: None, "flush": lambda: None, "degraded": lambda: None}
    parts = {
        "settings": settings(),
        "instance": "here",
        "life": "life",
        "clock": ManualClock(),
        "counters": Counter(),
        **calm,
    }
    return GatewayContext(**{**parts, "read_only": lambda: None, **given})


def new_session(
    hub: Hub | None = None, encoder: Encoder = FRAME_ENCODER, user: str | None = "42", **given: Any
) -> Session:
    """A session, open for a user unless that is None."""
    clock = ManualClock()
    output = Output("s-1", settings(**given), encoder, (hub or Hub()).dirty, Counter(), clock)
    session = Session(output, Subscriptions(output))
    if user is not None:
        session.open(Principal(user, clock.wall() + 600, frozenset(), {}), "here")
        session.output.out.clear()
    return session


def record(
    offset: int,
    topic: str = f"{USER}:operation:1",
    keep: Keep = "log",
    lane: int = 1,
    key: str | None = None,
    expires: int = 0,
    pad: int = 0,
    emitted: int = 0,
) -> Record:
    data: dict[str, object] = {"pad": "x" * pad} if pad else {}
    members = {"offset": offset, "id": f"id-{next(_ids):08}", "type": "a.b", "topic": topic, "data": data}
    event = json.dumps(members, separators=(",", ":")).encode()
    if keep == "latest" and key is None:
        key = topic
    return Record(offset, lane, keep, expires, emitted, "a.b", topic, key, event)


def publication(before: int, *records: Record, epoch: str = "e1") -> Publication:
    return Publication(epoch, before, records)


def history(
    offset: int, *log: Record, epoch: str = "e1", snapshot: tuple[Record, ...] = (), whole: bool = True
) -> History:
    """A reading; ``whole`` means that its log reaches back to the beginning."""
    entries, previous = [], 0 if whole else (log[0].offset - 1 if log else 0)
    for entry in log:
        entries.append(LogEntry(previous, entry))
        previous = entry.offset
    return History(Position(epoch if offset else "", offset), previous, entries, snapshot)


def payloads_of(data: bytes) -> list[bytes]:
    """The payloads of unmasked WebSocket text frames."""
    payloads = []
    while data:
        assert data[0] == 0x81
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        payloads.append(data[start : start + size])
        assert len(payloads[-1]) == size
        data = data[start + size :]
    return payloads


def frames_of(session: Session) -> list[Frame]:
    """Take out the events that the session has to write."""
    data = b"".join(session.output.out)
    session.output.out.clear()
    return [json.loads(payload) for payload in payloads_of(data)]


def messages_of(session: Session) -> list[tuple[str, object]]:
    """The same in short: control events with the relevant data, events with their offset."""
    return [_short(frame) for frame in frames_of(session)]


def _short(frame: Frame) -> tuple[str, object]:
    if not frame["type"].startswith("bus."):
        return ("event", frame["offset"])
    data = frame["data"]
    match frame["type"]:
        case "bus.subscribed":
            return ("subscribed", (data["how"], data["epoch"], data["offset"]))
        case "bus.position" | "bus.hold" | "bus.release":
            return (frame["type"][4:], data["offset"])
        case "bus.gap":
            return ("gap", data["reason"])
    return (frame["type"][4:], data.get("ref", data.get("code")))


def join(hub: Hub, session: Session, topic: str = f"{USER}:*", since: Position | None = None) -> Channel:
    """Do what ``SessionRecovery.subscribe`` does before it reads."""
    name = channel_of(topic)
    known = hub.channels.get(name)
    session.subscriptions.add(Subscribe(topic, since), known.offset if known else 0)
    return hub.join(name, session)


def settle(hub: Hub, session: Session, channel: Channel, reading: History | None = None) -> None:
    """Do what ``SessionRecovery`` does with a reading: for a channel that is not live, then for the session."""
    reading = reading if reading is not None else history(channel.offset)
    if not channel.live:
        assert hub.recover(channel, reading, 0) is not None
    recovery = session.subscriptions.channels[channel.name].recovery
    assert recovery is not None
    for_recovered = None
    if recovery.recovered_topics:
        before = Position(reading.position.epoch, recovery.delivered_offset)
        for_recovered = resume(before, reading, recovery.buffered_live, 0)
    found = resume(recovery.since, reading, recovery.buffered_live, 0)
    session.subscriptions.replay(channel.name, found, for_recovered)
    hub.mark_live(channel.name, session)


def heard(session: Session, page: Page) -> None:
    """Let a page hear what the session has to say."""
    for payload in payloads_of(b"".join(session.output.out)):
        page.receive(payload)
    session.output.out.clear()
