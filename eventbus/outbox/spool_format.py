"""The file format of the spool: entries as framed bytes. Pure.

A frame begins with the length and the CRC-32 of its content, four bytes each, big-endian. The content is a line of
JSON, and the JSON of an event, a line each. A process may die while it writes: bytes after a damaged frame are not
read.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict
from typing import Any, Final

from eventbus.events.encoder import Emission, Lifetime
from eventbus.events.receipt import Receipt
from eventbus.operations.changes import EventStamp
from eventbus.operations.state import TaskTransition
from eventbus.outbox.entries import Entry, TransitionEntry

__all__ = ["HEAD", "Damaged", "frame", "frame_length", "unframe"]

_HEAD: Final = struct.Struct(">II")
HEAD: Final = _HEAD.size
_FIELDS: Final = ("channel", "topic", "lane", "keep", "key", "header", "expires")


class Damaged(ValueError):
    """The bytes are not a whole frame."""


def frame(entry: Entry) -> bytes:
    """Return one entry as a frame.

    Args:
        entry: an event or a transition.
    """
    if isinstance(entry, Emission):
        facts: dict[str, Any] = {"event": _facts(entry)}
        tails = [entry.tail]
    else:
        facts = {
            "transition": asdict(entry.transition),
            "channel": entry.channel,
            "topic": entry.topic,
            "operation": entry.operation,
            "stamp": asdict(entry.stamp()),
        }
        tails = []
    content = b"\n".join((json.dumps(facts, separators=(",", ":")).encode(), *tails))
    return _HEAD.pack(len(content), zlib.crc32(content)) + content


def frame_length(head: bytes) -> int:
    """Return the number of bytes of a frame.

    Args:
        head: its first ``HEAD`` bytes.

    Raises:
        Damaged: there are fewer bytes.
    """
    if len(head) < HEAD:
        raise Damaged("the head of a frame is cut")
    length, _ = _HEAD.unpack(head[:HEAD])
    return HEAD + int(length)


def unframe(data: bytes) -> Entry:
    """Return the entry of a frame.

    Args:
        data: one whole frame.

    Raises:
        Damaged: the checksum differs, or the content cannot be read.
    """
    _, checksum = _HEAD.unpack(data[:HEAD])
    content = data[HEAD:]
    if zlib.crc32(content) != checksum:
        raise Damaged("the checksum of a frame differs")
    line, *tails = content.split(b"\n")
    try:
        facts = json.loads(line)
        if "event" in facts:
            return _emission(facts["event"], tails[0])
        stamp = EventStamp(**facts["stamp"])
        return TransitionEntry(
            facts["channel"], facts["topic"], facts["operation"], TaskTransition(**facts["transition"]), lambda: stamp
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"a frame cannot be read: {error}") from None


def _facts(emission: Emission) -> dict[str, object]:
    facts = {name: getattr(emission, name) for name in _FIELDS}
    return {**facts, "id": emission.id, "lifetime": asdict(emission.lifetime)}


def _emission(facts: dict[str, Any], tail: bytes) -> Emission:
    plain = {name: facts[name] for name in _FIELDS}
    return Emission(**plain, lifetime=Lifetime(**facts["lifetime"]), receipt=Receipt(facts["id"]), tail=tail)
