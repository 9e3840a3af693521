"""The audit log as a Redis stream: bounded, with a TTL, newest entries first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from eventbus.backends.audit import AuditEntry, Via, log_entry
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.reader import RedisReader
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.settings import BusSettings

__all__ = ["AuditLog", "RedisAuditStore", "audit_commands"]

_READ_PER_CALL: Final = 500


def audit_commands(settings: BusSettings, keys: Keys, entry: AuditEntry) -> Sequence[Command]:
    """Make the commands that write an entry. Send them before the action, and call ``log_entry``.

    Args:
        settings: names the bounds.
        keys: names of the keys.
        entry: the action.

    Returns:
        The commands.
    """
    fields = (
        *("action", entry.action, "by", entry.by, "via", entry.via, "target", entry.target),
        *("count", entry.count, "ids", json.dumps(entry.ids)),
    )
    return (
        ("XADD", keys.audit, "MAXLEN", "~", settings.audit_limit, "*", *fields),
        ("EXPIRE", keys.audit, math.ceil(settings.audit_ttl.total_seconds())),
    )


class RedisAuditStore:
    """``AuditStore`` over a reader's connection.

    Args:
        settings: bounds, and the keys' prefix.
        reader: runs the commands.
    """

    def __init__(self, settings: BusSettings, reader: RedisReader) -> None:
        self._settings = settings
        self._keys = Keys.of(settings)
        self._reader = reader

    async def record(self, entry: AuditEntry) -> None:
        """See ``AuditStore``."""
        for command in audit_commands(self._settings, self._keys, entry):
            await self._reader.execute(*command)
        log_entry(entry)


class AuditLog:
    """The blocking client: it writes and reads entries. One thread uses it at a time.

    Every method raises ``Unavailable`` or ``Refused``.

    Args:
        settings: address, bounds and the keys' prefix; the default reads the environment.
    """

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings()
        self._keys = Keys.of(self._settings)
        self._redis = RedisPublisher(self._settings)

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def record(self, entry: AuditEntry) -> None:
        """Write an entry, and a line of the log. Call it before the action.

        Args:
            entry: the action.
        """
        self._redis.execute(*audit_commands(self._settings, self._keys, entry))
        log_entry(entry)

    def entries(
        self, *, by: str | None = None, action: str | None = None, since_ms: int = 0, limit: int = 100
    ) -> list[AuditEntry]:
        """Read entries, the newest first.

        Args:
            by: only those of this person; None: of all.
            action: only this action, or actions that begin so and a dot; None: all.
            since_ms: only those from this time on, milliseconds since 1970.
            limit: maximum number.

        Returns:
            The entries.
        """
        found: list[AuditEntry] = []
        for entry in self._newest(since_ms):
            if by in {None, entry.by} and (action is None or f"{entry.action}.".startswith(f"{action}.")):
                found.append(entry)
            if len(found) >= limit:
                break
        return found

    def _newest(self, since_ms: int) -> Iterator[AuditEntry]:
        end = "+"
        while True:
            command = ("XREVRANGE", self._keys.audit, end, since_ms or "-", "COUNT", _READ_PER_CALL)
            (rows,) = self._redis.execute(command)
            for id_, fields in rows:
                yield _entry(id_.decode(), dict(zip(fields[::2], fields[1::2], strict=True)))
            if len(rows) < _READ_PER_CALL:
                return
            end = f"({rows[-1][0].decode()}"


def _entry(id_: str, fields: dict[bytes, bytes]) -> AuditEntry:
    def text(name: str) -> str:
        return fields.get(name.encode(), b"").decode("utf-8", "replace")

    ids: Any = json.loads(text("ids") or "[]")
    count = text("count")
    return AuditEntry(
        action=text("action"),
        by=text("by"),
        via=cast("Via", text("via")),
        target=text("target"),
        count=int(count) if count.isdecimal() else 0,
        ids=tuple(ids),
        time=int(id_.partition("-")[0]),
    )
