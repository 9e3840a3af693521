"""A page on a WebSocket, for tests: it keeps a cursor, drops what it has seen, and waits for what should come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from eventbus.events.event import Event
from eventbus.testing.captured_event import CapturedEvent, emitted_of
from eventbus.testing.captured_events import Events
from eventbus.testing.failure_messages import expectation, listed, nearest
from eventbus.testing.matching import Like
from eventbus.testing.targets import Address
from webui_adapter.testing.page import Frame, Page

__all__ = ["Client", "open_page"]

E = TypeVar("E", bound=Event)

PATIENCE: Final = 10.0  # seconds
TROUBLE: Final = ("bus.error", "bus.gap", "bus.degraded", "bus.drain")


class Client:
    """A connected page. It hears only while a test waits with one of its methods.

    Attributes:
        page: what the page knows: cursor, frames, the gateway's own words.
        events: what its listeners would have got, to be asserted on like captured events.
        raw: each frame as it came.
    """

    def __init__(self, connection: ClientConnection, page: Page, *, acknowledges: bool = False) -> None:
        """``acknowledges``: what must reach a person is acknowledged when it has come, as the browser client does."""
        self.connection = connection
        self.page = page
        self.raw: list[str | bytes] = []
        self._acknowledges = acknowledges
        self._seen: list[CapturedEvent[Event]] = [emitted_of(frame) for frame in page.events]
        self.events = Events(self._seen)

    @property
    def cursor(self) -> str:
        """Where this page is: another one that begins with it goes on from here."""
        return self.page.cursor

    async def event(self, cls: type[E], seconds: float = PATIENCE, /, **members: object) -> E:
        """The first event of a class with these members: one that has come, or that comes within ``seconds``.

        Raises:
            AssertionError: none did; it says what came nearest and how that differs.
            ConnectionClosed: the gateway has ended the connection.
        """
        __tracebackhide__ = True
        like = Like(cls, members)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (found := self.events.of(cls, **members)):
                    await self.receive(seconds)
                return found[0]
        raise AssertionError(
            f"no {expectation(like, Address())} came within {seconds:g} s\n"
            f"{nearest(like, Address(), self._seen)}\n{listed(self._seen)}{self._trouble()}"
        )

    def _trouble(self) -> str:
        """What the gateway said that may be why."""
        events = [event for event in self.page.control_events if event["type"] in TROUBLE]
        lines = [f"  {event['type']}: {json.dumps(event['data'])}" for event in events]
        return "\n".join(["\nthe gateway sent:", *lines]) if lines else ""

    async def receive(self, seconds: float = PATIENCE) -> Frame:
        """Take in the next frame. TimeoutError if none comes."""
        async with asyncio.timeout(seconds):
            text = await self.connection.recv()
        self.raw.append(text)
        frame = self.page.receive(text)
        self._seen += map(emitted_of, self.page.events[len(self._seen) :])
        if self._acknowledges and self.page.unacked:
            ids, self.page.unacked = self.page.unacked, []
            await self.send(do="ack", ids=ids)
        return frame

    async def until(self, condition: Callable[[Page], object], what: str = "", seconds: float = PATIENCE) -> None:
        """Hear until the page is in a state. AssertionError if that does not come about within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                while not condition(self.page):
                    await self.receive(seconds)
        except TimeoutError:
            frames = (*self.page.control_events, *self.page.events)[-12:]
            last = [(frame["type"], frame.get("offset"), frame["data"]) for frame in frames]
            raise AssertionError(f"waited {seconds:g} s for: {what or condition}; last frames: {last}") from None

    async def until_settled(self, *channels: str) -> None:
        """Hear until each channel's history has come."""
        missing = set(channels)
        await self.until(
            lambda page: missing <= {data["channel"] for data in page.data_of("bus.position")}, f"history of {channels}"
        )

    async def send(self, **command: object) -> None:
        """Send a command, whatever comes of it."""
        await self.connection.send(json.dumps(command))

    async def request(self, **command: object) -> Frame:
        """Send a command and wait for its answer: ``bus.ok``, ``bus.subscribed`` or ``bus.error``."""
        ref = command.setdefault("ref", f"r{len(self.page.control_events)}-{time.monotonic_ns()}")
        await self.send(**command)
        answers: list[Frame] = []

        def answered(page: Page) -> bool:
            answers[:] = [word for word in page.control_events if word["data"].get("ref") == ref]
            return bool(answers)

        await self.until(answered, f"the answer to {command}")
        return answers[0]

    async def subscribe(self, topic: str) -> None:
        """Read a topic too, ``collection:7:*`` for instance.

        Raises:
            AssertionError: the gateway says no.
        """
        __tracebackhide__ = True
        answer = await self.request(do="subscribe", topic=topic)
        if answer["type"] == "bus.error":
            raise AssertionError(f"{topic} was refused: {answer['data']['message']}")

    async def closed(self, seconds: float = PATIENCE) -> int:
        """Hear everything to the end; the close code."""
        try:
            while True:
                await self.receive(seconds)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006


@contextlib.asynccontextmanager
async def open_page(
    address: str, token: str, *, user: str, cursor: str = "", topics: tuple[str, ...] = ()
) -> AsyncIterator[Client]:
    """A page of ``user``, connected, with the histories of its user's channel and ``system`` taken in.

    Args:
        address: ``GatewayProcess.ws``.
        token: see ``make_token``.
        user: whose token it is.
        cursor: where an earlier page, or ``start_operation``, says to begin; else it starts now.
        topics: patterns to read beside the user's own.
    """
    page = Page(cursor)
    query = urlencode([("cursor", page.cursor), *(("topic", topic) for topic in topics)])
    async with connect(
        f"{address}?{query}",
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        max_size=None,
        max_queue=None,  # who does not listen answers pings all the same
        ping_interval=None,
    ) as connection:
        client = Client(connection, page, acknowledges=True)
        await client.until_settled(f"user:{user}", "system")
        yield client
