"""Validation of records: each undeliverable one is rejected once. The gateway moves it to the dead letters. No I/O."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from eventbus.backends.dead_letters import DeathReason
from eventbus.errors import InvalidName
from eventbus.events.event import Event, is_event_type
from eventbus.events.registry import Registry
from eventbus.events.round_trip import json_traits, read_json
from eventbus.protocol.history import History, LogEntry
from eventbus.protocol.records import Record
from eventbus.protocol.topics import check_id

__all__ = ["DEAD_LETTER_BYTES", "RecordValidator", "Undeliverable"]

DEAD_LETTER_BYTES: Final = 65_536
"""How many bytes of a record its dead letter keeps."""

_REMEMBERED: Final = 1_000
_KNOWN_TYPES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """A record that cannot be delivered.

    Attributes:
        channel: Its channel.
        id: The event's id, or a hash of its bytes.
        reason: Why it cannot be delivered.
        content: The record, or the part of it that could be read.
    """

    channel: str
    id: str
    reason: DeathReason
    content: bytes


class RecordValidator:
    """Validates the records of one gateway: each record once, not once per session.

    Attributes:
        rejected: Undeliverable records since the gateway last took them.
    """

    def __init__(self, limit: int, counters: Counter[str], registry: Registry | None = None) -> None:
        """Begin without a rejected record.

        Args:
            limit: The maximal size of an event in bytes.
            counters: Receives ``drop.{reason}``.
            registry: The event classes to validate each event against, which parses its JSON. None: only the
                header and the size are validated, which costs next to nothing.
        """
        self._limit = limit
        self._counters = counters
        self._registry = registry
        self._models: dict[str, type[BaseModel]] = {}
        # Types of the grammar that were seen: a look into the set takes less time than the grammar.
        self._types: set[str] = set()
        # A history is read again and again. Each of its faults is reported once.
        self._reported: OrderedDict[str, None] = OrderedDict()
        self.rejected: list[Undeliverable] = []

    def deliverable(self, channel: str, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records that can be delivered.

        Args:
            channel: The channel.
            records: Records of the channel.

        Returns:
            The deliverable records; the same sequence if all are.
        """
        limit, every, known = self._limit, self._registry is not None, self._types
        for record in records:
            event = record.event
            # 13 is a carriage return. A search for an integer takes a tenth of the time of one for b"\r".
            if every or len(event) > limit or record.type not in known or not event.isascii() or 13 in event:
                break
        else:
            return records
        # Void records were rejected before.
        passed = [record for record in records if record.event and self._passes(channel, record)]
        return records if len(passed) == len(records) else passed

    def filter_history(self, channel: str, history: History) -> History:
        """Replace undeliverable records of a reading by void ones, which keep their place.

        Args:
            channel: The channel.
            history: The reading.

        Returns:
            The reading; the same object if all records are deliverable.
        """
        records = [*(entry.record for entry in history.log), *history.snapshot]
        deliverable = self.deliverable(channel, records)
        if len(deliverable) == len(records):
            return history
        good = set(map(id, deliverable))
        log = [e if id(e.record) in good else LogEntry(e.previous, e.record.void()) for e in history.log]
        return replace(history, log=log, snapshot=[record for record in history.snapshot if id(record) in good])

    def reject_unreadable(self, channel: str, payload: bytes) -> None:
        """Reject a publication that cannot be parsed.

        Args:
            channel: The channel.
            payload: Its bytes.
        """
        self._reject(channel, _id_of_bytes(payload), "undecodable", payload)

    def _passes(self, channel: str, record: Record) -> bool:
        reason = self._rejection_reason(record)
        if reason is not None:
            self._counters[f"drop.{reason}"] += 1
            readable = reason != "undecodable"
            id_ = record.id if readable and _is_id(record.id) else _id_of_bytes(record.event)
            self._reject(channel, id_, reason, record.line if readable else record.event)
        return reason is None

    def _rejection_reason(self, record: Record) -> DeathReason | None:
        # A client of WebSocket must fail at text that is not UTF-8. A carriage return would end a line of SSE.
        if not self._is_type(record.type) or not _is_text(record.event) or b"\r" in record.event:
            return "undecodable"
        if len(record.event) > self._limit:
            return "too_large"
        if self._registry is None:
            return None
        cls = self._registry.get(record.type)
        if cls is None:
            return "unknown_type"
        try:
            frame = self._model(cls, record.type).model_validate_json(record.event)
            traits = json_traits(cls)
            if traits.readable and not traits.same_names:
                read_json(cls, getattr(frame, "data"))  # noqa: B009 - made below
        except ValidationError:
            return "invalid"
        return None

    def _is_type(self, type_: str) -> bool:
        if type_ in self._types:
            return True
        if not is_event_type(type_):
            return False
        if len(self._types) < _KNOWN_TYPES:
            self._types.add(type_)
        return True

    def _model(self, cls: type[Event], type_: str) -> type[BaseModel]:
        model = self._models.get(type_)
        if model is None:
            traits = json_traits(cls)
            data = cls if traits.readable and traits.same_names else dict[str, Any]
            fields: dict[str, Any] = {"id": (str, ...), "type": (str, ...), "topic": (str, ...), "data": (data, ...)}
            config = ConfigDict(extra="ignore")
            model = self._models[type_] = create_model(f"Frame of {type_}", __config__=config, **fields)
        return model

    def _reject(self, channel: str, id_: str, reason: DeathReason, content: bytes) -> None:
        name = f"{channel} {id_}"
        if name in self._reported:
            return
        self._reported[name] = None
        if len(self._reported) > _REMEMBERED:
            self._reported.popitem(last=False)
        # An operator who requeues a part of a record must not mistake it for a whole one.
        kept = content if len(content) <= DEAD_LETTER_BYTES else b"cut off: " + content[:DEAD_LETTER_BYTES]
        self.rejected.append(Undeliverable(channel, id_, reason, kept))


def _is_text(event: bytes) -> bool:
    try:
        event.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_id(text: str) -> bool:
    """Return whether an operator can name the id again: the id of a foreign producer may be anything."""
    try:
        check_id(text, "id")
    except InvalidName:
        return False
    return True


def _id_of_bytes(content: bytes) -> str:
    """Return a hash as the id. Every instance finds the same record, and the equal id makes it one dead letter."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
