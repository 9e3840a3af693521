"""A gateway over a broker in this process, whose readings can be held back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from eventbus.backends.memory.adapters import MemoryBroker, MemoryPendingStore, MemoryReader, MemorySubscriber
from eventbus.backends.memory.revocations import MemoryRevocations
from eventbus.backends.pending import PendingBatch
from eventbus.backends.ports import Write
from eventbus.events.encoder import EmissionBuilder
from eventbus.events.event import Event
from eventbus.protocol.cursor import Position, parse_cursor
from eventbus.protocol.history import History
from eventbus.protocol.history import Page as Slice
from eventbus.settings import BusSettings
from tests.webui_adapter.gateways import SECRET, eventually, token
from tests.webui_adapter.page import Page
from tests.webui_adapter.parts import payloads_of, settings
from webui_adapter.access.authenticator import Authenticate, Credentials
from webui_adapter.access.authoriser import Authoriser, by_claim
from webui_adapter.context import BackendPorts
from webui_adapter.gateway.build import build_gateway
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.session.session import Session
from webui_adapter.transports.encoders import FRAME_ENCODER

__all__ = [
    "ONE",
    "TWO",
    "USER",
    "HeldPendingStore",
    "HeldReader",
    "LossySubscriber",
    "PageLine",
    "World",
    "turns",
    "world",
]


USER = "user:ann"


ONE = f"{USER}:operation:1"


TWO = f"{USER}:operation:2"


class HeldReader:
    """A real reader whose answers can be held back, and that can fail."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._reader = MemoryReader(broker)
        self.read_and_held: list[tuple[str, int | None]] = []
        self.reads = 0
        self.error: Exception | None = None
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    async def read(self, channel: str, after: int | None, page: Slice | None = None) -> History:
        self.reads += 1
        if self.error is not None:
            raise self.error
        history = await self._reader.read(channel, after, page)
        if not self._open.is_set():
            self.read_and_held.append((channel, after))
            await self._open.wait()
        return history

    async def fork(self, channel: str, epoch: str) -> bool:
        if self.error is not None:
            raise self.error
        return await self._reader.fork(channel, epoch)

    def be_voter(self, heard: Callable[[], tuple[str, Position] | None], moved: Callable[[str], None]) -> None:
        pass

    async def renew(self) -> bool:
        return False

    async def positions(self, channels: Sequence[str]) -> list[Position]:
        if self.error is not None:
            raise self.error
        return await self._reader.positions(channels)

    async def aclose(self) -> None:
        pass


class LossySubscriber(MemorySubscriber):
    """A real subscriber that can receive nothing, and be slow to acknowledge; it remembers what it was asked."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.deaf = False
        self.asked: list[tuple[str, str]] = []

    async def subscribe(self, channel: str) -> None:
        self.asked.append(("subscribe", channel))
        await super().subscribe(channel)

    def unsubscribe(self, channel: str) -> None:
        self.asked.append(("unsubscribe", channel))
        super().unsubscribe(channel)

    def deliver(self, channel: str, payload: bytes) -> None:
        if not self.deaf:
            super().deliver(channel, payload)


class PageLine:
    """The edge of a page in this process: takes what it is given, unless it pauses."""

    def __init__(self, gateway: Gateway, session: Session, page: Page) -> None:
        self._gateway = gateway
        self.session = session
        self.page = page
        self.cuts = 0
        self.pings = 0
        self.closed: int | None = None

    def flush(self) -> None:
        for payload in payloads_of(b"".join(self.session.output.out)):
            self.page.receive(payload)
        self.session.output.out.clear()
        if self.session.output.close_code is not None and self.closed is None:
            self.closed = self.session.output.close_code
            asyncio.get_running_loop().call_soon(self._gateway.disconnect, self.session, self.closed)

    def ping(self) -> None:
        self.pings += 1
        self.session.pong()

    def cut(self) -> None:
        self.cuts += 1

    def send(self, do: str, topic: str | None = None, **members: object) -> None:
        command = self.session.receive(json.dumps({"do": do, **({"topic": topic} if topic else {}), **members}))
        assert command is not None
        self._gateway.handle(self.session, command)

    def resume(self) -> None:
        """As a socket that takes again."""
        self.session.output.resume_writing(1_000_000)
        self.flush()
        while self.session.output.idle_callbacks:
            self.session.output.resume_writing(1_000_000)
            self.flush()


class World:
    """A gateway over a broker in this process."""

    def __init__(
        self,
        authoriser: Authoriser = by_claim,
        log_limit: int = 10_000,
        ack_timeout: float | None = None,
        authenticate: Authenticate | None = None,
        **given: Any,
    ) -> None:
        """``ack_timeout``: with pending events, which are redelivered after so many seconds."""
        bus = BusSettings(redis_url="memory://", log_limit=log_limit, ack_timeout=ack_timeout or 10)
        self.broker = MemoryBroker(bus)
        self.reader = HeldReader(self.broker)
        self.subscriber = LossySubscriber(self.broker)
        own = settings(**given).model_copy(update={"jwt_secret": None})
        own = type(own)(**{**own.model_dump(), "jwt_secret": SECRET})
        self.pending_store = HeldPendingStore(self.broker)
        pending_store = self.pending_store if ack_timeout else None
        revocations = MemoryRevocations(self.broker)
        ports = BackendPorts(self.subscriber, self.reader, pending_store=pending_store, revocations=revocations)
        self.gateway = build_gateway(own, ports, authoriser, authenticate=authenticate, ack_timeout=bus.ack_timeout)
        self._builder = EmissionBuilder(bus)

    def publish(self, *events: Event, topic: str = ONE) -> None:
        channel = ":".join(topic.split(":")[:2])
        self.broker.carry_out(Write(channel, [self._builder.build(topic, event) for event in events]))

    def connect(self, cursor: str | Page = "", topics: tuple[str, ...] = (), **claims: Any) -> PageLine:
        return self.connect_with(Credentials(token("ann", **claims)), cursor, topics)

    def connect_with(self, credentials: Credentials, cursor: str | Page = "", topics: tuple[str, ...] = ()) -> PageLine:
        page = cursor if isinstance(cursor, Page) else Page(cursor)
        session = self.gateway.connect(FRAME_ENCODER)
        line = PageLine(self.gateway, session, page)
        self.gateway.attach_transport(session, line)
        self.gateway.authentication.begin(session, credentials, parse_cursor(page.cursor), topics)
        self.gateway.flush()
        return line

    async def settled(self, line: PageLine, *channels: str) -> None:
        for channel in channels or (USER, "system"):
            await eventually(lambda name=channel: name in line.page.positions, f"position of {channel}")
        await eventually(
            lambda: not any(v.recovery for v in line.session.subscriptions.channels.values()),
            "the end of all replays",
        )


@contextlib.asynccontextmanager
async def world(*args: Any, **given: Any) -> AsyncIterator[World]:
    own = World(*args, **given)
    await own.gateway.start()
    await eventually(lambda: own.gateway.degraded is None, "the gateway to be ready")
    try:
        yield own
    finally:
        await own.gateway.aclose()


async def turns(count: int = 20) -> None:
    """Let everything happen that is ready to happen."""
    for _ in range(count):
        await asyncio.sleep(0)


class HeldPendingStore(MemoryPendingStore):
    """A real pending store whose answers can be held back."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self, channel: str) -> PendingBatch:
        self.asked += 1
        pending = await super().fetch(channel)
        await self.open.wait()
        return pending
