"""Checks Redis' health on a separate connection: does it publish, and does it take writes?"""

from __future__ import annotations

from typing import Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from eventbus.backends.redis.connections.errors import classify, describe_cluster
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.settings import BusSettings

__all__ = ["RedisProbe"]

_LIFE_MS: Final = 60_000
_REASONS: Final = {
    redis.exceptions.OutOfMemoryError: "it is out of memory",
    redis.exceptions.ReadOnlyError: "it is a replica",
    redis.exceptions.MovedError: "it is a cluster",
}
_CODES: Final = {"MISCONF": "it cannot save its data", "NOREPLICAS": "it has too few replicas"}


class RedisProbe:
    """``Probe`` over one connection. It is separate, since a busy connection for history is no sign
    of bad health.

    Args:
        settings: address and time limits.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._keys = Keys(settings.key_prefix)
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            settings.redis_url,
            protocol=2,
            max_connections=1,
            timeout=settings.socket_timeout,
            socket_connect_timeout=settings.connect_timeout,
            socket_timeout=settings.socket_timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = redis.asyncio.Redis(connection_pool=pool)
        self._checked_cluster = False
        self._cluster: str | None = None

    async def publish_canary(self, text: str, instance: str) -> str | None:
        """See ``Probe``. A server without memory refuses writes and still publishes."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.publish(self._keys.canary, text)
        pipeline.set(self._keys.probe(instance), text, px=_LIFE_MS)
        if not self._checked_cluster:
            pipeline.execute_command("CLUSTER", "INFO")
        try:
            published, written, *info = await pipeline.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as error:
            raise classify(error) from error
        if isinstance(published, redis.RedisError):
            raise classify(published)
        if info:
            self._checked_cluster, self._cluster = True, describe_cluster(info[0])
        return self._cluster or (_why_refused(written) if isinstance(written, redis.RedisError) else None)

    async def aclose(self) -> None:
        """See ``Probe``."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect()


def _why_refused(error: redis.RedisError) -> str:
    """Describe an error for a status page. The text stays the same as long as the reason is the
    same.
    """
    text = str(error)
    described = next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), None)
    return described or _CODES.get(text.partition(" ")[0]) or text[:100]
