"""python-socketio with its Redis manager, as an ASGI application under uvicorn, with a room per user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jwt
import redis
import socketio  # type: ignore[import-untyped]  # the package has no types

from bench.contenders.contract import SECRET, Contender, Emission
from bench.contenders.pubsub import SynchronousEmitter
from bench.contenders.uvicorn_server import serve, uvicorn_command
from bench.payload import NAME, envelope

__all__ = ["PYTHON_SOCKETIO"]


def create_app(redis_url: str) -> socketio.ASGIApp:
    """Return the application."""
    server = socketio.AsyncServer(
        async_mode="asgi",
        client_manager=socketio.AsyncRedisManager(redis_url),
        transports=["websocket"],
        cors_allowed_origins="*",
    )

    async def connect(session: str, _: dict[str, Any], auth: dict[str, str]) -> None:
        user = jwt.decode(auth["token"], SECRET, algorithms=["HS256"])["sub"]
        await server.enter_room(session, user)

    server.on("connect", connect)
    return socketio.ASGIApp(server)


class _Batches(socketio.RedisManager):  # type: ignore[misc]  # the package has no types
    """The write-only manager of the library. It publishes to a pipeline until `flush`."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(redis_url, write_only=True)
        self._pipeline = redis.Redis.from_url(redis_url).pipeline(transaction=False)

    def _publish(self, data: object) -> None:
        self._pipeline.publish(self.channel, self.json.dumps(data))

    def flush(self) -> None:
        self._pipeline.execute()


class _Publisher:
    def __init__(self, redis_url: str) -> None:
        self._batches = _Batches(redis_url)

    def publish(self, batch: Sequence[Emission]) -> None:
        for emission in batch:
            self._batches.emit(NAME, envelope(emission), room=emission.user)
        self._batches.flush()


class _Emitter(SynchronousEmitter):
    def __init__(self, redis_url: str) -> None:
        self._plain = socketio.RedisManager(redis_url, write_only=True)

    def emit(self, emission: Emission) -> None:
        self._plain.emit(NAME, envelope(emission), room=emission.user)


PYTHON_SOCKETIO = Contender(
    name="socketio",
    title="python-socketio + Redis",
    dialect="socketio",
    path="/socket.io/?EIO=4&transport=websocket",
    command=uvicorn_command("python_socketio"),
    publisher=_Publisher,
    emitter=_Emitter,
)

if __name__ == "__main__":
    serve(create_app)
