"""The sieve: which records can be delivered to nobody. Each is condemned once, and buried by the edge. No I/O."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from eventbus.backends.dead_letters import DeathReason
from eventbus.errors import InvalidName
from eventbus.events.registry import Registry
from eventbus.protocol.history import History, LogEntry
from eventbus.protocol.records import Record
from eventbus.protocol.topics import check_id

__all__ = ["DEAD_LETTER_BYTES", "RecordValidator", "Undeliverable"]

DEAD_LETTER_BYTES: Final = 65_536
_REMEMBERED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """What cannot be delivered. ``content`` is the record, or what could be read of it."""

    channel: str
    id: str
    reason: DeathReason
    content: bytes


class RecordValidator:
    """One of a gateway. Looks at each record once, not once per session.

    ``registry`` makes it read the JSON and hold it against the event classes; without it a record is judged by its
    header and its size, which costs next to nothing.

    Attributes:
        condemned: what was found, since the edge last took it.
    """

    def __init__(self, limit: int, counters: Counter[str], registry: Registry | None = None) -> None:
        """``limit``: bytes of an event. ``counters`` gets ``drop.{reason}``."""
        self._limit = limit
        self._counters = counters
        self._registry = registry
        self._shapes: dict[str, type[BaseModel] | None] = {}
        # A history is read again and again; what is wrong with it is told once.
        self._known: OrderedDict[str, None] = OrderedDict()
        self.rejected: list[Undeliverable] = []

    def deliverable(self, channel: str, records: Sequence[Record]) -> Sequence[Record]:
        """Those that can be delivered; the very same sequence where all can."""
        limit, every = self._limit, self._registry is not None
        for record in records:
            if every or len(record.event) > limit or not record.type:
                break
        else:
            return records
        # Void ones were condemned before.
        return [record for record in records if record.event and self._passes(channel, record)]

    def filter_history(self, channel: str, history: History) -> History:
        """A reading in which the others have become void: they keep their place, so that nothing looks missing."""
        records = [*(entry.record for entry in history.log), *history.snapshot]
        deliverable = self.deliverable(channel, records)
        if len(deliverable) == len(records):
            return history
        good = set(map(id, deliverable))
        log = [e if id(e.record) in good else LogEntry(e.previous, e.record.void()) for e in history.log]
        return replace(history, log=log, snapshot=[record for record in history.snapshot if id(record) in good])

    def reject_unreadable(self, channel: str, payload: bytes) -> None:
        """Condemn a publication that is none."""
        self._condemn(channel, _id_of_bytes(payload), "undecodable", payload)

    def _passes(self, channel: str, record: Record) -> bool:
        reason = self._fault(record)
        if reason is not None:
            self._counters[f"drop.{reason}"] += 1
            readable = reason != "undecodable"
            id_ = record.id if readable and _is_id(record.id) else _id_of_bytes(record.event)
            self._condemn(channel, id_, reason, record.line if readable else record.event)
        return reason is None

    def _fault(self, record: Record) -> DeathReason | None:
        if not record.type:
            return "undecodable"
        if len(record.event) > self._limit:
            return "too_large"
        if self._registry is None:
            return None
        shape = self._shape(self._registry, record.type)
        if shape is None:
            return "unknown_type"
        try:
            shape.model_validate_json(record.event)
        except ValidationError:
            return "invalid"
        return None

    def _shape(self, registry: Registry, type_: str) -> type[BaseModel] | None:
        cls = registry.get(type_)
        if cls is None:
            return None
        shape = self._shapes.get(type_)
        if shape is None:
            fields: dict[str, Any] = {"id": (str, ...), "type": (str, ...), "topic": (str, ...), "data": (cls, ...)}
            config = ConfigDict(extra="ignore")
            shape = self._shapes[type_] = create_model(f"Frame of {type_}", __config__=config, **fields)
        return shape

    def _condemn(self, channel: str, id_: str, reason: DeathReason, content: bytes) -> None:
        name = f"{channel} {id_}"
        if name in self._known:
            return
        self._known[name] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        # A part of a record must not be taken for one by who requeues it.
        kept = content if len(content) <= DEAD_LETTER_BYTES else b"cut off: " + content[:DEAD_LETTER_BYTES]
        self.rejected.append(Undeliverable(channel, id_, reason, kept))


def _is_id(text: str) -> bool:
    """Whether it is one that a person could name again: a foreign producer's may be anything."""
    try:
        check_id(text, "id")
    except InvalidName:
        return False
    return True


def _id_of_bytes(content: bytes) -> str:
    """Every instance finds it; the id is made of the bytes, so one of them buries it."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
