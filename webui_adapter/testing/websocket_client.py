"""A client on a WebSocket, for tests: it keeps a cursor, drops duplicates, and waits for events."""

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
    """A connected page. It receives only while a test waits in one of its methods.

    Args:
        connection: the WebSocket.
        page: the rules and the state of the client.
        acknowledges: whether the client acknowledges events as the browser client does.

    Attributes:
        page: cursor, frames and control events.
        events: the events that listeners would receive, for assertions like those on captured events.
        raw: each frame as it arrived.
    """

    def __init__(self, connection: ClientConnection, page: Page, *, acknowledges: bool = False) -> None:
        self.connection = connection
        self.page = page
        self.raw: list[str | bytes] = []
        self._acknowledges = acknowledges
        self._seen: list[CapturedEvent[Event]] = [emitted_of(frame) for frame in page.events]
        self.events = Events(self._seen)

    @property
    def cursor(self) -> str:
        """The cursor. Another page that begins with it resumes here."""
        return self.page.cursor

    async def event(self, cls: type[E], seconds: float = PATIENCE, /, **members: object) -> E:
        """Wait for the first event of a class with these members. It may have arrived already.

        Args:
            cls: the event class.
            seconds: how long to wait.
            members: required values of the event's members.

        Returns:
            The event.

        Raises:
            AssertionError: no such event came; the message shows the nearest one and how it differs.
            ConnectionClosed: the gateway has closed the connection.
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
        """Describe what the gateway sent that may be the cause."""
        events = [event for event in self.page.control_events if event["type"] in TROUBLE]
        lines = [f"  {event['type']}: {json.dumps(event['data'])}" for event in events]
        return "\n".join(["\nthe gateway sent:", *lines]) if lines else ""

    async def receive(self, seconds: float = PATIENCE) -> Frame:
        """Take in the next frame.

        Args:
            seconds: how long to wait.

        Returns:
            The frame.

        Raises:
            TimeoutError: none came.
        """
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
        """Receive until the page is in a state.

        Args:
            condition: returns whether the page is in this state.
            what: the state in text, for the message.
            seconds: how long to wait.

        Raises:
            AssertionError: the page did not reach the state.
        """
        try:
            async with asyncio.timeout(seconds):
                while not condition(self.page):
                    await self.receive(seconds)
        except TimeoutError:
            frames = (*self.page.control_events, *self.page.events)[-12:]
            last = [(frame["type"], frame.get("offset"), frame["data"]) for frame in frames]
            raise AssertionError(f"waited {seconds:g} s for: {what or condition}; last frames: {last}") from None

    async def until_settled(self, *channels: str) -> None:
        """Receive until the history of each channel has arrived.

        Args:
            channels: names of channels.
        """
        missing = set(channels)
        await self.until(
            lambda page: missing <= {data["channel"] for data in page.data_of("bus.position")}, f"history of {channels}"
        )

    async def send(self, **command: object) -> None:
        """Send a command without waiting for its answer.

        Args:
            command: the members of the command.
        """
        await self.connection.send(json.dumps(command))

    async def request(self, **command: object) -> Frame:
        """Send a command and wait for its answer.

        Args:
            command: the members of the command.

        Returns:
            The answer: ``bus.ok``, ``bus.subscribed`` or ``bus.error``.
        """
        ref = command.setdefault("ref", f"r{len(self.page.control_events)}-{time.monotonic_ns()}")
        await self.send(**command)
        answers: list[Frame] = []

        def answered(page: Page) -> bool:
            answers[:] = [event for event in page.control_events if event["data"].get("ref") == ref]
            return bool(answers)

        await self.until(answered, f"the answer to {command}")
        return answers[0]

    async def subscribe(self, topic: str) -> None:
        """Subscribe to a pattern.

        Args:
            topic: the pattern, for example ``collection:7:*``.

        Raises:
            AssertionError: the gateway refuses.
        """
        __tracebackhide__ = True
        answer = await self.request(do="subscribe", topic=topic)
        if answer["type"] == "bus.error":
            raise AssertionError(f"{topic} is refused: {answer['data']['message']}")

    async def closed(self, seconds: float = PATIENCE) -> int:
        """Receive everything until the connection ends.

        Args:
            seconds: how long to wait for each frame.

        Returns:
            The close code.
        """
        try:
            while True:
                await self.receive(seconds)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006


@contextlib.asynccontextmanager
async def open_page(
    address: str, token: str, *, user: str, cursor: str = "", topics: tuple[str, ...] = ()
) -> AsyncIterator[Client]:
    """Connect as a user, and receive the histories of the user's channel and of ``system``.

    Args:
        address: ``GatewayProcess.ws``.
        token: see ``make_token``.
        user: the user of the token.
        cursor: where to resume, from an earlier page or ``start_operation``; empty: the present.
        topics: patterns in addition to the default ones.

    Yields:
        The connected client.
    """
    page = Page(cursor)
    query = urlencode([("cursor", page.cursor), *(("topic", topic) for topic in topics)])
    async with connect(
        f"{address}?{query}",
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        max_size=None,
        max_queue=None,  # the client answers pings while the test does not receive
        ping_interval=None,
    ) as connection:
        client = Client(connection, page, acknowledges=True)
        await client.until_settled(f"user:{user}", "system")
        yield client
