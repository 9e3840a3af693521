"""The fuzzed functions: each target takes bytes, and raises only if the product is wrong. Pure."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from eventbus.errors import InvalidAddress, InvalidCursor, InvalidName, InvalidRecord
from eventbus.outbox.spool_format import Damaged, unframe
from eventbus.protocol.cursor import format_cursor, parse_cursor
from eventbus.protocol.records import Record, join_records, parse_publication, parse_redelivery, read_record
from eventbus.protocol.topics import channel_of, check_pattern, check_user, matches
from eventbus.redis_url import parse_redis_url
from webui_adapter.access.tokens import TokenChecker
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.errors import CommandRefused, RequestRefused, TokenRefused
from webui_adapter.logging_config import redact
from webui_adapter.protocol.commands import parse_command
from webui_adapter.protocol.server_sent_events import sse_event
from webui_adapter.protocol.websocket_handshake import check_upgrade, is_upgrade, read_request
from webui_adapter.protocol.websocket_parser import Closing, Event, Message, Violation, read_frames
from webui_adapter.settings import GatewaySettings

__all__ = ["TARGETS", "Target"]

Target = Callable[[bytes], None]

LIMIT: Final = 4_096
SECRET: Final = "a secret of these tests, long enough"
CHECKER: Final = TokenChecker(GatewaySettings(_env_file=None, jwt_secret=SECRET))  # type: ignore[arg-type,call-arg]


def frames(data: bytes) -> None:
    """However the bytes are cut, the events are the same. A message is never above the limit."""
    whole = parsed([data])
    step = 1 + (len(data) and data[0] % 7)
    cut = parsed([data[i : i + step] for i in range(0, len(data), step)])
    assert cut == whole, (cut, whole)
    for event in whole[:-1]:
        assert not isinstance(event, Closing | Violation), "nothing follows the end"
    for event in whole:
        if isinstance(event, Message):
            assert len(event.data) <= LIMIT
        if isinstance(event, Violation):
            assert event.code in {1002, 1007, 1009}
            assert len(event.reason.encode()) <= 123


def parsed(pieces: list[bytes]) -> list[Event]:
    """Read pieces as a connection does: three frames a turn."""
    events: list[Event] = []
    state = None
    for piece in pieces:
        data, frames = piece, 3
        while frames == 3:
            found, state, frames = read_frames(data, state, LIMIT, 3)
            events += found
            data = b""
            if found and isinstance(found[-1], Closing | Violation):
                return events
        assert state is None or len(state.rest) <= LIMIT + 14
    return events


def handshake(data: bytes) -> None:
    """A head is read or refused; what is read has no line breaks."""
    with contextlib.suppress(RequestRefused):
        request = read_request(data)
        assert not any("\n" in text or "\r" in text for text in request.headers.values())
        if is_upgrade(request):
            assert check_upgrade(request)


def commands(data: bytes) -> None:
    """A command is read or refused, as text and as bytes."""
    with contextlib.suppress(CommandRefused):
        parse_command(data)
    with contextlib.suppress(CommandRefused):
        parse_command(data.decode("utf-8", "replace"))


def publications(data: bytes) -> None:
    """A publication that is read can be written again; the rest is one kind of error."""
    with contextlib.suppress(InvalidRecord):
        read = parse_publication(data)
        again = parse_publication(join_records(read.epoch, read.before, [one.line for one in read.records]))
        assert [one.line for one in again.records] == [one.line for one in read.records]
    with contextlib.suppress(InvalidRecord):
        parse_redelivery(data)


def records(data: bytes) -> None:
    """A record that passes the check makes one event of a stream, and no second one."""
    record: Record = read_record(data, 7)
    validator = RecordValidator(LIMIT, Counter())
    for one in validator.deliverable("user:42", [record]):
        one.event.decode()
        stream = sse_event(one.type, one.event, None)
        assert stream.count(b"\n") == 3, stream
        assert b"\r" not in stream
        assert not one.type.startswith("bus.")


def cursors(data: bytes) -> None:
    """A cursor that is read says the same when it is written and read again."""
    with contextlib.suppress(InvalidCursor):
        cursor = parse_cursor(data.decode("utf-8", "surrogateescape"))
        assert parse_cursor(format_cursor(cursor)) == cursor


def topics(data: bytes) -> None:
    """A pattern that is accepted belongs to one channel, and matches nothing of another one."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(InvalidName):
        pattern = check_pattern(text)
        channel = channel_of(pattern)
        assert not matches(pattern, "user:another-one:operation:9") or channel == "user:another-one"
        assert not set(pattern) & set("{} \r\n\0")
    with contextlib.suppress(InvalidName):
        assert check_user(text) == text


def tokens(data: bytes) -> None:
    """A token is refused, whatever it is: it is not signed with the secret."""
    with contextlib.suppress(TokenRefused):
        principal = CHECKER.check(data.decode("utf-8", "surrogateescape"))
        raise AssertionError(f"{principal.user} came in")


def spool(data: bytes) -> None:
    """A frame of the spool is read, or is damaged."""
    if len(data) >= 8:
        with contextlib.suppress(Damaged):
            unframe(data)


def addresses(data: bytes) -> None:
    """An address is read or refused, and no message has its password."""
    url = f"redis://user:pass-w0rd@{data.decode('utf-8', 'replace').replace('pass-w0rd', '')}"
    try:
        address = parse_redis_url(url)
        said = f"{address} {address!r}"
    except InvalidAddress as error:
        said = str(error)
    assert "pass-w0rd" not in said


def redaction(data: bytes) -> None:
    """No token of a query is left, and a line of any length takes little time."""
    text = data.decode("utf-8", "replace")
    began = time.process_time()
    cleaned = redact(f"GET /eventbus/sse?token=eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl&x={text}")
    assert "c2lnbmF0dXJl" not in cleaned
    assert time.process_time() - began < 1


TARGETS: Final[Mapping[str, Target]] = {
    target.__name__: target
    for target in (
        *(frames, handshake, commands, publications, records, cursors, topics, tokens),
        *(spool, addresses, redaction),
    )
}
"""The targets by name."""
