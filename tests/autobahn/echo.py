"""A gateway whose sessions answer each message with the same message, on its own transports, for Autobahn's client.

``python -m tests.autobahn.echo alone|mounted PORT``
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import uvicorn
from fastapi import FastAPI

from eventbus.backends.memory.adapters import MemoryBroker
from eventbus.settings import BusSettings
from webui_adapter.app import create_server
from webui_adapter.gateway.build import connect_gateway
from webui_adapter.gateway.gateway import Gateway
from webui_adapter.http.router import routes
from webui_adapter.protocol.commands import Command
from webui_adapter.protocol.websocket_frames import text_frame
from webui_adapter.session.connection import Encoder
from webui_adapter.session.session import Session
from webui_adapter.settings import GatewaySettings

# The largest message of the cases.
SIZE = 16 * 1024 * 1024
MANY = 1_000_000.0


class EchoSession(Session):
    """A session that takes any message for a command, and answers with it."""

    __slots__ = ()

    def receive(
        self, data: str | bytes, refuse: Callable[[Mapping[str, object]], None] | None = None
    ) -> Command | None:
        frame = bytearray(text_frame(data.encode() if isinstance(data, str) else data))
        if isinstance(data, bytes):
            frame[0] = 0x82
        self.output.out.append(bytes(frame))
        assert self.output.transport is not None
        self.output.transport.flush()
        return None


class EchoGateway(Gateway):
    """A gateway with such sessions."""

    def connect(self, encoder: Encoder, client: str = "") -> Session:
        session = super().connect(encoder, client)
        session.__class__ = EchoSession
        return session


def echo_gateway(port: int) -> Gateway:
    """A gateway without the limits that a client without a token has."""
    settings = GatewaySettings(
        port=port,
        jwt_secret="a secret that no one needs, long enough",
        auth_deadline=600,
        max_auth_size=SIZE + 1024,
        max_command_size=SIZE + 1024,
        unauthenticated_frame_rate_limit=MANY,
        unauthenticated_byte_rate_limit=MANY * 1024,
        address_open_rate=MANY,
    )
    gateway = connect_gateway(settings, BusSettings(), broker=MemoryBroker())
    gateway.__class__ = EchoGateway
    return gateway


def main(way: str, port: int) -> None:
    gateway = echo_gateway(port)
    if way == "alone":
        create_server(gateway).run()
        return
    app = FastAPI()
    app.include_router(routes(gateway))
    uvicorn.run(
        app,
        port=port,
        ws="webui_adapter.uvicorn:WebSocketProtocol",
        http="webui_adapter.uvicorn:HttpProtocol",
        log_level="warning",
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
