"""The simplest server: FastAPI, redis-py's pub/sub, `await ws.send_text(...)` in a loop.

It checks the token, as the others do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import jwt
import redis
import redis.asyncio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from bench.contenders.contract import SECRET, Contender, Emission
from bench.contenders.pubsub import pubsub_adapter
from bench.contenders.uvicorn_server import serve, uvicorn_command
from bench.payload import envelope

__all__ = ["PLAIN_FASTAPI"]

_ALL_USERS: Final = "all-users"
_TO_USER: Final = "to:"


class Connections:
    """The sockets of this process by user."""

    def __init__(self) -> None:
        self._sockets: dict[str, WebSocket] = {}

    def add(self, user: str, socket: WebSocket) -> None:
        self._sockets[user] = socket

    def remove(self, user: str) -> None:
        self._sockets.pop(user, None)

    async def to_all(self, text: str) -> None:
        for user, socket in list(self._sockets.items()):
            await self._send(user, socket, text)

    async def to_user(self, user: str, text: str) -> None:
        socket = self._sockets.get(user)
        if socket is not None:
            await self._send(user, socket, text)

    async def _send(self, user: str, socket: WebSocket, text: str) -> None:
        try:
            await socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            self.remove(user)


async def _forward(redis_url: str, connections: Connections) -> None:
    async with redis.asyncio.from_url(redis_url, decode_responses=True) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(_ALL_USERS)
        await pubsub.psubscribe(f"{_TO_USER}*")
        async for message in pubsub.listen():
            if message["type"] == "message":
                await connections.to_all(message["data"])
            elif message["type"] == "pmessage":
                await connections.to_user(message["channel"].removeprefix(_TO_USER), message["data"])


def create_app(redis_url: str) -> FastAPI:
    """Return the application."""
    connections = Connections()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_forward(redis_url, connections))
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/ws")
    async def events(socket: WebSocket, token: str) -> None:
        user = str(jwt.decode(token, SECRET, algorithms=["HS256"])["sub"])
        await socket.accept()
        connections.add(user, socket)
        await socket.send_text("ready")
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            connections.remove(user)

    return app


def _message(emission: Emission) -> tuple[str, bytes]:
    channel = _ALL_USERS if emission.user is None else _TO_USER + emission.user
    return channel, json.dumps(envelope(emission), separators=(",", ":")).encode()


PLAIN_FASTAPI = Contender(
    name="plain",
    title="plain FastAPI + redis-py",
    dialect="plain",
    path="/ws",
    command=uvicorn_command("plain_fastapi"),
    publisher=pubsub_adapter(_message),
    emitter=pubsub_adapter(_message),
)

if __name__ == "__main__":
    serve(create_app)
