"""The registry of gateway instances in Redis: for a gateway's event loop, and for an operator's shell."""

from __future__ import annotations

from eventbus.backends.instances import InstanceLease, InstanceRecord, Renewal
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts import instances
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.settings import BusSettings

__all__ = ["Instances", "RedisControlChannel", "RedisInstanceRegistry"]


class RedisInstanceRegistry:
    """``InstanceRegistry``. It uses a reader's connection and time limits.

    Args:
        settings: the lease and the keys' prefix.
        reader: runs the scripts.
    """

    def __init__(self, settings: BusSettings, reader: RedisReader) -> None:
        self._settings = settings
        self._keys = Keys.of(settings)
        self._reader = reader
        self._names: dict[str, str] = {}

    async def renew(self, life: str, record: InstanceRecord) -> Renewal:
        """See ``InstanceRegistry``."""
        self._names[life] = record.name
        return await self._reader.run(instances.renew(self._settings, self._keys, life, record))

    async def leave(self, life: str) -> None:
        """See ``InstanceRegistry``."""
        name = self._names.pop(life, None)
        if name is not None:
            for command in instances.leave(self._keys, life, name):
                await self._reader.execute(*command)


class RedisControlChannel:
    """``ControlChannel`` over pub/sub. It uses a reader's connection and time limits.

    Args:
        settings: the keys' prefix.
        reader: publishes.
    """

    def __init__(self, settings: BusSettings, reader: RedisReader) -> None:
        self._keys = Keys.of(settings)
        self._reader = reader

    async def send(self, life: str, message: bytes) -> bool:
        """See ``ControlChannel``."""
        receivers = int(await self._reader.execute("PUBLISH", self._keys.control(life), message))
        return receivers > 0 or self._keys.cluster


class Instances:
    """Lists the instances. It blocks; one thread uses it at a time.

    Args:
        settings: address and the keys' prefix; the default reads the environment.
    """

    def __init__(self, settings: BusSettings | None = None) -> None:
        settings = settings or BusSettings()
        self._keys = Keys.of(settings)
        self._redis = RedisPublisher(settings)

    def list(self) -> list[InstanceLease]:
        """Return the instances by name, also those whose leases have ended lately.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """
        return self._redis.run(instances.list_instances(self._keys))

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
