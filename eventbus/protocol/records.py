"""Records and publications: the bytes between worker, Redis and gateway (``docs/reference/redis-keys.md``).

The worker writes the event's JSON once. A gateway never parses it: the routing header has what a gateway needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from eventbus.errors import InvalidRecord, NewerFormat
from eventbus.protocol.formats import FORMAT
from eventbus.protocol.policy import LANES, Keep

__all__ = [
    "NO_KEY",
    "Publication",
    "Record",
    "join_records",
    "parse_publication",
    "parse_record",
    "parse_records",
    "parse_redelivery",
    "read_record",
    "routing_header",
]

NO_KEY: Final = "-"
# Text of the header -> what is kept, and whether the user has to acknowledge it.
_KEEPS: Final[dict[bytes, tuple[Keep, bool]]] = {
    b"log": ("log", False),
    b"latest": ("latest", False),
    b"nothing": ("nothing", False),
    b"ack": ("log", True),
}
_REDELIVERY: Final = b"again "
_MAX_FORMAT: Final = 1_000  # a number above it is rubbish
_MAX_DIGITS: Final = 16  # of an offset, as in a cursor; Python itself refuses numbers of more than 4,300 digits
_ID_WITHIN: Final = 200  # bytes: an offset of 16 digits and an id of 128 characters have room in it
_LANE_CODES: Final = tuple(lane[0] for lane in LANES)
_LANE_NUMBERS: Final = {code.encode(): number for number, code in enumerate(_LANE_CODES)}


@dataclass(slots=True, eq=False)
class Record:
    """One event as it comes out of Redis.

    Attributes:
        offset: place in its channel.
        lane: 0 high, 1 normal, 2 low.
        keep: ``log``, ``latest`` or ``nothing``.
        expires: milliseconds since 1970 after which it is not worth delivering; 0: never.
        emitted: microseconds since 1970 when ``emit`` was called.
        type: as in the event.
        topic: as in the event.
        key: conflation key, or None.
        event: the JSON, as it goes to the browser.
        ack: whether its user has to acknowledge it.
    """

    offset: int
    lane: int
    keep: Keep
    expires: int
    emitted: int
    type: str
    topic: str
    key: str | None
    event: bytes
    ack: bool = False

    @property
    def id(self) -> str:
        """The event's id, read out of the JSON. Only pending and rejected events need it.

        Empty where the JSON does not begin as this library writes it.
        """
        parts = self.event[:_ID_WITHIN].split(b'"', 6)
        return parts[5].decode(errors="replace") if len(parts) == 7 and parts[3] == b"id" else ""

    def void(self) -> Record:
        """Return a record at the same place in the channel that has nothing to deliver."""
        return replace(self, type="", topic="", key=None, event=b"", ack=False)

    @property
    def line(self) -> bytes:
        """The record as Redis has it: header and JSON."""
        header = routing_header(
            lane=self.lane,
            keep=self.keep,
            expires_ms=self.expires,
            emitted_us=self.emitted,
            type_=self.type,
            topic=self.topic,
            key=self.key,
            ack=self.ack,
        )
        return f"{self.offset} {header}\n".encode() + self.event

    @property
    def size(self) -> int:
        """Bytes that this record takes while it waits."""
        return len(self.event) + 200


@dataclass(slots=True)
class Publication:
    """The content of one ``PUBLISH``.

    Attributes:
        epoch: the channel's life.
        before: offset before the first record.
        records: with contiguous offsets.
    """

    epoch: str
    before: int
    records: Sequence[Record]


def routing_header(
    *,
    lane: int,
    keep: Keep,
    expires_ms: int,
    emitted_us: int,
    type_: str,
    topic: str,
    key: str | None,
    ack: bool = False,
) -> str:
    """Return the header without the offset, which Redis puts in front.

    Args:
        lane: 0 high, 1 normal, 2 low.
        keep: ``log``, ``latest`` or ``nothing``.
        expires_ms: milliseconds since 1970; 0: never.
        emitted_us: microseconds since 1970.
        type_: the event's type.
        topic: the event's topic.
        key: conflation key, or None.
        ack: whether the user has to acknowledge the event.
    """
    return f"{_LANE_CODES[lane]} {'ack' if ack else keep} {expires_ms} {emitted_us} {type_} {topic} {key or NO_KEY}"


def parse_record(header: bytes, event: bytes) -> Record:
    """Read one record from its two lines.

    Args:
        header: the first line.
        event: the second line.

    Returns:
        The record.

    Raises:
        InvalidRecord: the header does not have the form of the protocol.
    """
    try:
        offset, lane, keep, expires, emitted, type_, topic, key = header.split(b" ", 7)
        kept, ack = _KEEPS[keep]
        return Record(
            int(offset),
            _LANE_NUMBERS[lane],
            kept,
            int(expires),
            int(emitted),
            type_.decode(),
            topic.decode(),
            None if key == b"-" else key.decode(),
            event,
            ack,
        )
    except (ValueError, KeyError) as error:
        raise InvalidRecord(f"record header {header[:200]!r} cannot be read: {error}") from None


def read_record(data: bytes, offset: int = 0) -> Record:
    """Read one record as Redis keeps it. An unreadable record keeps its place in the channel.

    Args:
        data: header line and event line.
        offset: place of a record that cannot be read.

    Returns:
        The record. One that cannot be read has an empty type and topic, and its bytes as event.
    """
    header, _, event = data.partition(b"\n")
    if b"\n" in event:
        header = b""  # unreadable: a line feed would end a line of SSE
    try:
        return parse_record(header, event)
    except InvalidRecord:
        return Record(offset, LANES.index("normal"), "log", 0, 0, "", "", None, data)


def parse_records(lines: Sequence[bytes]) -> list[Record]:
    """Read records from alternating header and event lines.

    Args:
        lines: two for each record.

    Returns:
        The records.

    Raises:
        InvalidRecord: a line is missing, or a header cannot be read.
    """
    if len(lines) % 2:
        raise InvalidRecord("a record has a header line and an event line; one of them is missing")
    return [parse_record(lines[i], lines[i + 1]) for i in range(0, len(lines), 2)]


def parse_publication(payload: bytes) -> Publication:
    """Read the payload of a ``PUBLISH``.

    Args:
        payload: as received.

    Returns:
        The publication.

    Raises:
        InvalidRecord: this library did not write it, or an offset is missing.
        NewerFormat: a newer version wrote it.
    """
    lines = payload.split(b"\n")
    epoch, _, digits = lines[0].partition(b" ")
    if not digits.isdigit() or len(digits) > _MAX_DIGITS or not epoch.isascii():
        raise _unreadable(lines[0])
    before = int(digits)
    # Most publications to a user have one record. A slice and a loop would cost a measurable part of the time.
    records = [parse_record(lines[1], lines[2])] if len(lines) == 3 else parse_records(lines[1:])
    expected = before
    for record in records:
        expected += 1
        if record.offset != expected:
            raise InvalidRecord(f"publication has offset {record.offset} where {expected} is due")
    return Publication(epoch.decode(), before, records)


def _unreadable(first: bytes) -> InvalidRecord:
    """Say why a publication cannot be read. The first line of a newer one names its format at the end."""
    *_, number = fields = first.split(b" ")
    if len(fields) > 2 and len(number) < _MAX_DIGITS and number.isdigit() and FORMAT < int(number) < _MAX_FORMAT:
        return NewerFormat(int(number), FORMAT)
    return InvalidRecord(f"publication begins with {first[:100]!r}, not with 'epoch before'")


def parse_redelivery(payload: bytes) -> tuple[str, list[Record]] | None:
    """Read a publication that sends unacknowledged events again.

    Args:
        payload: as received.

    Returns:
        Epoch and records; None for any other publication.

    Raises:
        InvalidRecord: it begins like one and cannot be read.
    """
    if not payload.startswith(_REDELIVERY):
        return None
    first, *lines = payload.split(b"\n")
    return first[len(_REDELIVERY) :].decode("ascii", "replace"), parse_records(lines)


def join_records(epoch: str, before: int, records: Iterable[bytes]) -> bytes:
    """Return the payload that ``parse_publication`` reads; ``publish.lua`` writes the same.

    Args:
        epoch: the channel's life.
        before: offset before the first record.
        records: in order.
    """
    return b"\n".join((f"{epoch} {before}".encode(), *records))
