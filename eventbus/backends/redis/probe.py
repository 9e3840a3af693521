"""Checks Redis' health on a separate connection: does it publish, and does it take writes?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eventbus.backends.ports import IS_REPLICA
from eventbus.backends.redis.connections.errors import describe_cluster
from eventbus.backends.redis.connections.locator import AsyncLocator
from eventbus.backends.redis.connections.pipeline import Pipeline
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import TransportError
from eventbus.settings import BusSettings

__all__ = ["RedisProbe"]

_LIFE_MS: Final = 60_000
_REASONS: Final[Mapping[str, str]] = {
    "OOM": "it is out of memory",
    "READONLY": IS_REPLICA,
    "MOVED": "it is a cluster",
    "MISCONF": "it cannot save its data",
    "NOREPLICAS": "it has too few replicas",
}


class RedisProbe:
    """``Probe`` over one connection. It is separate, since a busy connection for history is no sign
    of bad health.

    Args:
        settings: address and time limits.
        locator: names the server for each new connection; default: the one that the address names.
    """

    def __init__(self, settings: BusSettings, *, locator: AsyncLocator | None = None) -> None:
        self._keys = Keys.of(settings)
        self._pipeline = Pipeline(settings, locator=locator)
        self._checked_cluster = False
        self._cluster: str | None = None

    async def publish_canary(self, text: str, instance: str) -> str | None:
        """See ``Probe``. A server without memory refuses writes and still publishes."""
        commands: list[Command] = [
            ("PUBLISH", self._keys.canary, text),
            ("SET", self._keys.probe(instance), text, "PX", _LIFE_MS),
        ]
        if not self._checked_cluster:
            commands.append(("CLUSTER", "INFO"))
        published, written, *info = await self._pipeline.replies(commands)
        for reply in (published, written):
            if isinstance(reply, TransportError) and (reply is published or not reply.code):
                raise reply
        if info:
            self._checked_cluster, self._cluster = True, describe_cluster(info[0])
        return self._cluster or (_why_refused(written) if isinstance(written, TransportError) else None)

    async def aclose(self) -> None:
        """See ``Probe``."""
        await self._pipeline.aclose()


def _why_refused(error: TransportError) -> str:
    """Describe an error for a status page. The text stays the same as long as the reason is the
    same.
    """
    return _REASONS.get(error.code) or str(error).partition(": ")[2][:100]
