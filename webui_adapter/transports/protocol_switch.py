"""The first bytes of a connection: a WebSocket handshake for the gateway's path goes to a ``DirectConnection``.

All other requests go to uvicorn. Only the stand-alone gateway switches protocols (``app.py``). A mounted gateway is
served through ASGI. So is a request for the gateway's path in another spelling, or with the host in its first line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableSet
from functools import lru_cache, partial
from typing import Any, Final, cast
from urllib.parse import unquote

from starlette.requests import cookie_parser
from starlette.types import Scope
from uvicorn import Config
from uvicorn.server import ServerState

from webui_adapter.errors import RequestRefused
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.protocol.websocket_handshake import (
    Request,
    acceptance,
    check_upgrade,
    is_upgrade,
    read_request,
    refusal,
)
from webui_adapter.transports.access import Asker, authorise_handshake
from webui_adapter.transports.uvicorn_http import TOO_SLOW, HttpProtocol, refuse
from webui_adapter.transports.websocket_direct import DirectConnection

__all__ = ["ProtocolSwitch", "make_protocol_switch"]

log = logging.getLogger(__name__)

_END: Final = b"\r\n\r\n"
_RETRY: Final = {"Retry-After": "1"}


class ProtocolSwitch(asyncio.Protocol):
    """One connection until its protocol is known.

    Args:
        gateway: the gateway.
        state: uvicorn's state, with all open connections.
        otherwise: makes the protocol for everything but a handshake of the gateway.
    """

    __slots__ = ("_begun", "_client", "_deadline", "_gateway", "_otherwise", "_state", "transport")

    def __init__(self, gateway: Gateway, state: ServerState, otherwise: Callable[[], HttpProtocol]) -> None:
        self._gateway = gateway
        self._state = state
        self._otherwise = otherwise
        self._begun = b""
        # The address whose connections count this one, until it is a session.
        self._client: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes, for ``handshake_timeout`` at most.

        Args:
            transport: the connection.
        """
        # A cast, not a check: uvloop's transports do not inherit from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self._client = self._gateway.address_limits.connected(_peer(self.transport))
        if self._client is None:
            self._gateway.counters["refused.address_connections"] += 1
            self.transport.write(_too_many(int(self._gateway.clock.wall())))
            self.transport.close()
            return
        _connections(self._state).add(self)
        seconds = self._gateway.settings.handshake_timeout
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Decide as soon as the bytes suffice.

        Args:
            data: the next bytes.
        """
        data = self._begun = self._begun + data if self._begun else data
        if not self._may_be_ours(data):
            self._hand_over(data)
            return
        limit = self._gateway.settings.max_handshake_size
        end = data.find(_END, 0, limit)
        if end < 0:
            if len(data) >= limit:
                self._refuse(RequestRefused(431, "too_large", f"the head of a request has at most {limit} bytes"))
            return
        try:
            request = read_request(data[:end])
            if not is_upgrade(request):
                self._hand_over(data)
                return
            _open_direct(self._gateway, self._state, self.transport, request, data[end + len(_END) :])
            self._leave()
        except RequestRefused as error:
            self._refuse(error)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection."""
        self._leave()

    def shutdown(self) -> None:
        """Close the connection: the server shuts down, and the client has asked for nothing."""
        self._leave()
        self.transport.close()

    def _may_be_ours(self, data: bytes) -> bool:
        """Return whether the bytes may become a handshake of the gateway; the path may be cut anywhere."""
        ours = f"GET {self._gateway.settings.prefix}/ws".encode()
        size = len(ours)
        return data[:size] == ours[: len(data)] and (len(data) <= size or data[size : size + 1] in (b" ", b"?"))

    def _hand_over(self, data: bytes) -> None:
        protocol = self._otherwise()
        client, self._client = self._client, None
        self._leave()
        if client is not None:
            protocol.on_lost = partial(self._gateway.address_limits.disconnected, client)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.data_received(data)

    def _too_slow(self) -> None:
        if self._begun:
            self._refuse(RequestRefused(408, "timeout", TOO_SLOW))
        else:
            # Browsers open connections in advance. There is no request to answer.
            self._leave()
            self.transport.close()

    def _refuse(self, error: RequestRefused) -> None:
        line = self._begun.partition(b"\r\n")[0].decode("latin-1")
        self._leave()
        refuse(self.transport, line, error)

    def _leave(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._client is not None:
            self._gateway.address_limits.disconnected(self._client)
            self._client = None
        self._begun = b""
        _connections(self._state).discard(self)


def _open_direct(
    gateway: Gateway, state: ServerState, transport: asyncio.Transport, request: Request, early: bytes
) -> None:
    """Open a session for a handshake. Raises RequestRefused."""
    key = check_upgrade(request)
    headers = request.headers
    cookie = headers.get("cookie")
    cookies = cookie_parser(cookie) if cookie else {}
    asker = Asker(_peer(transport), headers.get("x-forwarded-for"))
    offered = request.listed("sec-websocket-protocol")
    scope = partial(_scope, request, transport)
    accepted = authorise_handshake(gateway, asker, headers, offered, cookies, request.query, scope)
    log.debug("%s - WebSocket %s", transport.get_extra_info("peername"), request.target)
    connection = DirectConnection(gateway, transport, _connections(state))
    connection.begin(accepted, acceptance(key, accepted.subprotocol), early)


def _scope(request: Request, transport: asyncio.Transport) -> Scope:
    """Return the ASGI scope of a handshake, as uvicorn makes it."""
    secure = transport.get_extra_info("ssl_object") is not None
    return {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "wss" if secure else "ws",
        "client": transport.get_extra_info("peername"),
        "server": transport.get_extra_info("sockname"),
        "root_path": "",
        "path": unquote(request.path),
        "raw_path": request.path.encode("latin-1"),
        "query_string": request.query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()],
        "subprotocols": request.listed("sec-websocket-protocol"),
        "state": {},
    }


def make_protocol_switch(gateway: Gateway) -> Callable[..., ProtocolSwitch]:
    """Create what uvicorn calls for each connection: ``uvicorn.Config(http=…)``.

    Args:
        gateway: the gateway.

    Returns:
        A factory with uvicorn's signature.
    """
    ours = f"{gateway.settings.prefix}/ws"

    def connection(
        *, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> ProtocolSwitch:
        def otherwise() -> HttpProtocol:
            http = HttpProtocol(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
            http.head_timeout = http.body_timeout = gateway.settings.handshake_timeout
            http.head_limit = gateway.settings.max_head_size
            http.upgrade = partial(upgrade, http, server_state)
            return http

        return ProtocolSwitch(gateway, server_state, otherwise)

    def upgrade(http: HttpProtocol, state: ServerState, request: Request) -> bool:
        if request.path != ours:
            return False
        _open_direct(gateway, state, http.transport, request, b"")
        return True

    return connection


@lru_cache(maxsize=1)
def _too_many(_: int) -> bytes:
    """Return the answer to a connection too many, one for each second: it comes in hundreds, and must cost little."""
    return refusal(RequestRefused(429, "rate_limited", "this address has too many connections", _RETRY))


def _peer(transport: asyncio.BaseTransport) -> str:
    """Return the address of the other end; empty: a Unix socket, or a connection that has already ended."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def _connections(state: ServerState) -> MutableSet[Any]:
    # uvicorn annotates its own protocols here. It uses only shutdown() and transport, which ours have.
    return cast("MutableSet[Any]", state.connections)
