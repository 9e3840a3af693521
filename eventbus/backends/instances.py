"""The registry of gateway instances: what each one says of itself, and the port to say it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from eventbus.errors import InvalidRecord

__all__ = [
    "INSTANCES_LIMIT",
    "ControlChannel",
    "InstanceLease",
    "InstanceRecord",
    "InstanceRegistry",
    "InstanceState",
    "Renewal",
    "parse_instance",
]

INSTANCES_LIMIT: Final = 1_000
"""The largest number of instances that one call reads."""


class InstanceState(StrEnum):
    """The work that an instance can do."""

    STARTING = "starting"
    """It has not reached Redis yet."""
    READY = "ready"
    """It accepts connections and carries out all commands."""
    READ_ONLY = "read-only"
    """It delivers events and refuses commands that write."""
    DEGRADED = "degraded"
    """It may miss events at the moment; it reads them again later."""
    DRAINING = "draining"
    """It asks its pages to leave and accepts no more."""
    LOST = "lost"
    """Its lease has ended without a sign of it. No instance says this of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """The record of an instance, written with each heartbeat.

    Attributes:
        name: the instance's name. Two processes may have the same one, for example after a restart.
        version: version of this package.
        format: newest format of data in Redis that it reads.
        host: the machine's name.
        pid: process id.
        started: when it started, in ms since 1970 by its own clock.
        state: what it can do.
        reason: why it is not ready; empty: it is.
        connections: number of open connections.
        users: number of users who have one.
        cpu: share of one core that the process used since the last heartbeat.
        memory: resident memory in bytes.
        lag: longest delay of the event loop since the last heartbeat, in seconds.
    """

    name: str
    version: str
    format: int
    host: str
    pid: int
    started: int
    state: InstanceState
    reason: str = ""
    connections: int = 0
    users: int = 0
    cpu: float = 0.0
    memory: int = 0
    lag: float = 0.0

    @property
    def json(self) -> str:
        """The record as JSON, for Redis and for ``--json``."""
        return json.dumps(asdict(self), separators=(",", ":"))


_FIELDS: Final = {field.name: field for field in fields(InstanceRecord)}


def parse_instance(text: bytes) -> InstanceRecord:
    """Read a record. Fields of a newer version are ignored.

    Args:
        text: the JSON.

    Returns:
        The record.

    Raises:
        InvalidRecord: it is not a record.
    """
    try:
        values: dict[str, Any] = {name: value for name, value in json.loads(text).items() if name in _FIELDS}
        return InstanceRecord(**{**values, "state": InstanceState(values["state"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRecord(f"the record of a gateway instance cannot be read: {error}") from error


class InstanceLease(NamedTuple):
    """An instance as others see it.

    Attributes:
        life: the process. Each start of an instance has another one.
        record: what it said last.
        left: seconds until its lease ends, by Redis' clock; negative: it has ended.
    """

    life: str
    record: InstanceRecord
    left: float

    @property
    def state(self) -> InstanceState:
        """The state that it said, or ``LOST`` if its lease has ended."""
        return self.record.state if self.left > 0 else InstanceState.LOST


class Renewal(NamedTuple):
    """The answer to a heartbeat.

    Attributes:
        continuous: whether the lease was still held. If not, other instances may have taken this one for lost.
        namesakes: number of other processes with the same name whose leases are held.
    """

    continuous: bool
    namesakes: int


class InstanceRegistry(Protocol):
    """Where instances say that they live."""

    async def renew(self, life: str, record: InstanceRecord) -> Renewal:
        """Take or renew the lease of a process.

        Args:
            life: the process.
            record: what it says of itself.

        Returns:
            Whether it was continuous.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """

    async def leave(self, life: str) -> None:
        """End the lease and forget the process.

        Args:
            life: the process.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """


class ControlChannel(Protocol):
    """Carries messages from one gateway process to another. A message can be lost."""

    async def send(self, life: str, message: bytes) -> bool:
        """Send a message.

        Args:
            life: the process that receives it.
            message: the message.

        Returns:
            False if no process receives it. In a cluster that is not known, and the result is True.

        Raises:
            Unavailable, Refused: the server did not answer, or rejected the request.
        """
