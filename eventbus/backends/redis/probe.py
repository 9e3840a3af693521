"""Checks Redis' health on a separate connection: does it publish, and does it take writes?"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

from eventbus.backends.ports import IS_REPLICA
from eventbus.backends.redis.connections.errors import describe_cluster
from eventbus.backends.redis.connections.locator import AsyncLocator
from eventbus.backends.redis.connections.pipeline import Pipeline
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import now_ms
from eventbus.errors import TransportError
from eventbus.protocol.formats import FORMAT
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
        self._announced: str | None = None
        self._format_ttl_ms = int(settings.format_ttl * 1000)
        self._checked_cluster = False
        self._cluster: str | None = None

    async def publish_canary(self, text: str, instance: str) -> str | None:
        """See ``Probe``. A server without memory refuses writes and still publishes."""
        commands: list[Command] = [
            ("PUBLISH", self._keys.canary, text),
            ("SET", self._keys.probe(instance), text, "PX", _LIFE_MS),
            *self._announce(instance),
        ]
        if not self._checked_cluster:
            commands.append(("CLUSTER", "INFO"))
        published, written, *others = await self._pipeline.replies(commands)
        for reply in (published, written):
            if isinstance(reply, TransportError) and (reply is published or not reply.code):
                raise reply
        if not self._checked_cluster:
            self._checked_cluster, self._cluster = True, describe_cluster(others[-1])
        return self._cluster or (_why_refused(written) if isinstance(written, TransportError) else None)

    def _announce(self, instance: str) -> Sequence[Command]:
        """Announce the format that this instance understands, as long as it probes. Workers write no newer one."""
        name, now = self._keys.gateways, now_ms()
        self._announced = f"{FORMAT} {instance}"
        return (
            ("ZREMRANGEBYSCORE", name, "-inf", now),
            # An earlier version may have had the same name.
            ("ZREM", name, *(f"{older} {instance}" for older in range(1, FORMAT))),
            ("ZADD", name, now + self._format_ttl_ms, self._announced),
            ("PEXPIRE", name, self._format_ttl_ms),
        )

    async def aclose(self) -> None:
        """See ``Probe``. Workers need not consider this instance any more."""
        if self._announced is not None:
            with contextlib.suppress(TransportError):
                await self._pipeline.execute(("ZREM", self._keys.gateways, self._announced))
        await self._pipeline.aclose()


def _why_refused(error: TransportError) -> str:
    """Describe an error for a status page. The text stays the same as long as the reason is the
    same.
    """
    return _REASONS.get(error.code) or str(error).partition(": ")[2][:100]
