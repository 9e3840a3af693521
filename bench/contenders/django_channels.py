"""Django Channels with channels_redis under uvicorn: a group per user and one for all users.

It uses the pub/sub layer of channels_redis. The other layer keeps lists of 100 messages in Redis and drops the rest.
Under daphne a delivery takes a third more CPU time than under uvicorn, and a connection twice as much.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import jwt
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.conf import settings
from django.urls import path

from bench.contenders.contract import SECRET, Contender, Emission, Publisher
from bench.contenders.pubsub import SynchronousEmitter, pubsub_adapter
from bench.contenders.uvicorn_server import serve, uvicorn_command
from bench.payload import envelope

__all__ = ["DJANGO_CHANNELS"]

_ALL_USERS: Final = "all-users"
_LAYER: Final = os.environ.get("BENCH_CHANNEL_LAYER", "channels_redis.pubsub.RedisPubSubChannelLayer")


def _configure(redis_url: str) -> None:
    settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": _LAYER, "CONFIG": {"hosts": [redis_url]}}})


class Events(AsyncWebsocketConsumer):  # type: ignore[misc]  # the package has no types
    """Handles one connection."""

    async def connect(self) -> None:
        token = parse_qs(self.scope["query_string"].decode())["token"][0]
        self.user = str(jwt.decode(token, SECRET, algorithms=["HS256"])["sub"])
        await self.channel_layer.group_add(_ALL_USERS, self.channel_name)
        await self.channel_layer.group_add(self.user, self.channel_name)
        await self.accept()
        await self.send(text_data="ready")

    async def disconnect(self, _: int) -> None:
        await self.channel_layer.group_discard(_ALL_USERS, self.channel_name)
        await self.channel_layer.group_discard(self.user, self.channel_name)

    async def tick(self, message: Mapping[str, str]) -> None:
        await self.send(text_data=message["text"])


def create_app(redis_url: str) -> Any:
    """Return the application."""
    _configure(redis_url)
    return ProtocolTypeRouter({"websocket": URLRouter([path("ws", Events.as_asgi())])})


def _group(emission: Emission) -> str:
    return _ALL_USERS if emission.user is None else emission.user


def _message(emission: Emission) -> dict[str, str]:
    return {"type": "tick", "text": json.dumps(envelope(emission), separators=(",", ":"))}


def _publisher(redis_url: str) -> Publisher:
    """Publish the messages of the layer's `group_send` in a pipeline."""
    layer = RedisPubSubChannelLayer(hosts=[redis_url])
    return pubsub_adapter(lambda event: (f"asgi__group__{_group(event)}", layer.serialize(_message(event))))(redis_url)


class _Emitter(SynchronousEmitter):
    """Emits as the documentation describes for synchronous code, such as a task."""

    def __init__(self, redis_url: str) -> None:
        _configure(redis_url)
        self._send = async_to_sync(get_channel_layer().group_send)

    def emit(self, emission: Emission) -> None:
        self._send(_group(emission), _message(emission))


DJANGO_CHANNELS = Contender(
    name="channels",
    title="Django Channels + channels_redis",
    dialect="plain",
    path="/ws",
    command=uvicorn_command("django_channels"),
    publisher=_publisher,
    emitter=_Emitter,
)

if __name__ == "__main__":
    serve(create_app, lifespan="off")
