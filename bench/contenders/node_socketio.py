"""socket.io on Node with its Redis adapter: `bench/node/server.mjs`, with a room per user.

The publisher writes the same messages as `@socket.io/redis-emitter`: MessagePack to the adapter's channel.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgpack  # type: ignore[import-untyped]  # the package has no types

from bench.contenders.contract import SECRET, Command, Contender, Emission, Launch
from bench.contenders.pubsub import pubsub_adapter
from bench.payload import NAME, envelope

__all__ = ["NODE_SOCKETIO"]

_FOLDER: Final = Path(__file__).parent.parent / "node"
_EVENT: Final = 2  # packet type of Socket.IO
_ALL_USERS: Final = "socket.io#/#"

if shutil.which("node") is None:
    raise ImportError("node is not on the PATH")
if not (_FOLDER / "node_modules" / "socket.io").is_dir():
    raise ImportError("its packages are not installed; run make bench-node")


def _message(emission: Emission) -> tuple[str, bytes]:
    rooms = [] if emission.user is None else [emission.user]
    packet = {"type": _EVENT, "data": [NAME, envelope(emission)], "nsp": "/"}
    channel = _ALL_USERS if emission.user is None else f"{_ALL_USERS}{emission.user}#"
    return channel, msgpack.packb(["emitter", packet, {"rooms": rooms, "except": [], "flags": {}}])


def _command(launch: Launch) -> Command:
    argv = ["node", str(_FOLDER / "server.mjs"), str(launch.port), launch.redis_url, SECRET]
    return Command(argv, {"NODE_ENV": "production"})


NODE_SOCKETIO = Contender(
    name="node",
    title="socket.io (Node) + Redis adapter",
    dialect="socketio",
    path="/socket.io/?EIO=4&transport=websocket",
    command=_command,
    publisher=pubsub_adapter(_message),
    emitter=pubsub_adapter(_message),
)
