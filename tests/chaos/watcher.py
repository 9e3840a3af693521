"""Pages that always reconnect, and an emitter that records which events Redis has confirmed."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from eventbus import Bus, Receipt
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import GatewayProcess, eventually, token
from tests.webui_adapter.page import Frame, Page

__all__ = ["Emitter", "Watcher"]


class Watcher:
    """A page that reconnects with its cursor and with jitter, to any of the gateways, until the test ends it."""

    def __init__(self, user: str, *gateways: GatewayProcess, jitter: float = 0.3) -> None:
        self.user = user
        self.page = Page()
        self.connects = 0
        self.back_at: float | None = None
        # Type of every event, and seconds from emit to arrival.
        self.delays: list[tuple[str, float]] = []
        # Seconds between two events, at most.
        self.longest_pause = 0.0
        self._last_event: float | None = None
        self._gateways = gateways
        self._jitter = jitter
        self._connection: object | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        await eventually(lambda: len(self.page.data_of("bus.position")) >= 2, f"{self.user} to connect", 20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def p99(self, *types: str) -> float:
        """Return the milliseconds within which 99 of 100 events of these types arrived."""
        delays = sorted(seconds for type_, seconds in self.delays if type_ in types)
        return 1000 * delays[min(len(delays) - 1, len(delays) * 99 // 100)]

    def cut(self) -> None:
        """Abort the connection without a close frame."""
        transport = getattr(self._connection, "transport", None)
        if transport is not None:
            transport.abort()

    async def _watch(self) -> None:
        import random  # noqa: PLC0415 - only here

        headers = {"Authorization": f"Bearer {token(self.user)}"}
        while True:
            gateway = self._gateways[self.connects % len(self._gateways)]
            self.connects += 1
            try:
                async with connect(
                    f"{gateway.ws}?cursor={self.page.cursor}",
                    additional_headers=headers,
                    compression=None,
                    max_size=None,
                    ping_interval=None,
                    open_timeout=5,
                ) as connection:
                    self._connection = connection
                    self.back_at = time.monotonic()
                    async for text in connection:
                        known = len(self.page.events)
                        self.page.receive(text)
                        self._note(self.page.events[known:])
            except (OSError, WebSocketException, TimeoutError):
                pass
            self._connection = None
            await asyncio.sleep(random.uniform(0, self._jitter))

    def _note(self, events: Sequence[Frame]) -> None:
        if events:
            now, last = time.time(), self._last_event
            self.delays += [(event["type"], now - event["time"] / 1000) for event in events]
            self.longest_pause = max(self.longest_pause, 0.0 if last is None else now - last)
            self._last_event = now


class Emitter:
    """Emits numbered notes to users in a thread. Knows which of them Redis has confirmed."""

    def __init__(self, bus: Bus, users: Iterable[str], pause: float = 0.0005) -> None:
        self._bus = bus
        self._users = list(users)
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.receipts: dict[str, list[Receipt]] = {user: [] for user in self._users}
        self.slowest = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        n = 0
        while not self._stop.wait(self._pause):
            for user in self._users:
                began = time.monotonic()
                self.receipts[user].append(self._bus.emit(user, "op", Note(n=n)))
                self.slowest = max(self.slowest, time.monotonic() - began)
            n += 1

    @property
    def emitted(self) -> int:
        return sum(map(len, self.receipts.values()))

    def acknowledged(self, user: str) -> list[str]:
        return [
            receipt.id for receipt in self.receipts[user] if receipt.status in {"published", "duplicate", "spooled"}
        ]
