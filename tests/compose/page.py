"""The protocol's rules for a client that reconnects, over the ``websockets`` package."""

from __future__ import annotations

import asyncio
import random
from http.cookies import SimpleCookie
from typing import Any, Self
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from webui_adapter.testing.page import Frame
from webui_adapter.testing.page import Page as Rules

COOKIE = "EVENTBUS_GATEWAY"
_STAYS_AWAY = {1000, 1001, 1002, 1003, 1007, 1008, 1009}


class Page:
    """One page of one user.

    Attributes:
        cookie: the balancer's cookie, kept as a browser keeps it.
    """

    def __init__(self, url: str, token: str, cookie: str | None = None, **options: Any) -> None:
        self.cookie = cookie
        self._url = url
        self._token = token
        self._options = options
        self._rules = Rules()
        self._changed = asyncio.Condition()
        self._over = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def events(self) -> list[Frame]:
        """Return the events that the application received, in order."""
        return self._rules.events

    @property
    def instances(self) -> list[str]:
        """Return the gateways that sent a hello, in order."""
        return [data["instance"] for data in self._rules.data_of("bus.hello")]

    @property
    def hows(self) -> list[tuple[str, str]]:
        """Return how each channel was resumed, in order."""
        return [(data["channel"], data["how"]) for data in self._rules.data_of("bus.subscribed")]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def hello(self) -> None:
        """Wait for the gateway's first event."""
        await self.until(lambda: self.instances, "hello")

    async def until(self, condition: Any, what: str, seconds: float = 15) -> None:
        """Wait until an event makes the condition true."""

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: condition() or self._over)

        try:
            await asyncio.wait_for(wait(), seconds)
        except TimeoutError:
            raise AssertionError(f"waited {seconds:g} s for: {what}") from None
        assert condition(), f"the page has stopped after {self._over}, before: {what}"

    async def _follow(self) -> None:
        try:
            self._over = f"close code {await self._stay_connected()}"
        except Exception as error:
            self._over = repr(error)
            raise
        finally:
            async with self._changed:
                self._changed.notify_all()

    async def _stay_connected(self) -> int | None:
        attempt = 0
        while True:
            said = len(self.instances)
            try:
                async with self._connect() as line:
                    code = await self._read(line)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
            except InvalidStatus as refused:
                if refused.response.status_code != 503:
                    raise
                code = 1013
            except (OSError, InvalidHandshake, EOFError):
                code = 1006
            if code in _STAYS_AWAY or (code is not None and code >= 4100):
                return code
            attempt = 0 if len(self.instances) > said else attempt + 1
            # Full jitter, as the protocol requires.
            await asyncio.sleep(random.uniform(0, min(0.5, 0.02 * 2**attempt)))

    async def _read(self, line: ClientConnection) -> int | None:
        """Receive until the connection ends. Return its close code, or 4000 when the page itself has left."""
        leaving: asyncio.TimerHandle | None = None
        closing: list[asyncio.Task[None]] = []
        self._keep_cookie(line)
        async for text in line:
            frame = self._rules.receive(text)
            if frame["type"] == "bus.drain":
                after = frame["data"]["after_ms"] / 1000
                leaving = asyncio.get_running_loop().call_later(
                    after, lambda: closing.append(asyncio.create_task(line.close()))
                )
            async with self._changed:
                self._changed.notify_all()
        if leaving is not None:
            leaving.cancel()
        return 4000 if closing else line.close_code

    def _connect(self) -> connect:
        cursor = self._rules.cursor
        return connect(
            f"{self._url}?{urlencode({'cursor': cursor})}" if cursor else self._url,
            subprotocols=["eventbus.v1", f"access_token.{self._token}"],
            additional_headers={"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else None,
            compression=None,
            proxy=None,
            **self._options,
        )

    def _keep_cookie(self, line: ClientConnection) -> None:
        assert line.response is not None
        for header in line.response.headers.get_all("Set-Cookie"):
            found = SimpleCookie(header)
            if COOKIE in found:
                self.cookie = found[COOKIE].value
