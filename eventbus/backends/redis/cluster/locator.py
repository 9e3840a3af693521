"""Names a node of a Redis Cluster for a subscriber's connection."""

from __future__ import annotations

from eventbus.backends.redis.cluster.pipeline import ClusterPipeline
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["AnyMasterLocator"]


class AnyMasterLocator:
    """Names one master after the other. Publications of each master reach the subscribers of all.

    Args:
        settings: address and time limits.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._last: Endpoint | None = None

    async def locate(self) -> Endpoint:
        """See ``AsyncLocator``."""
        pipeline = ClusterPipeline(self._settings)
        try:
            masters = (await pipeline.current()).masters
        finally:
            await pipeline.aclose()
        # Another one than last time: a node that is cut off from the others still answers.
        place = masters.index(self._last) + 1 if self._last in masters else hash(self) % len(masters)
        self._last = masters[place % len(masters)]
        return self._last

    def holds(self, endpoint: Endpoint) -> bool:
        """See ``AsyncLocator``. A node that lost its slots still passes publications on."""
        del endpoint
        return True

    async def aclose(self) -> None:
        """See ``AsyncLocator``. Nothing stays open."""
