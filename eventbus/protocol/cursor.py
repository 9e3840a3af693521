"""Positions and cursors: the place of a reader in one channel, and in all of its channels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from eventbus.errors import InvalidCursor, InvalidName
from eventbus.protocol.topics import channel_of, whole_channel

__all__ = ["BEGINNING", "MAX_CURSOR", "Cursor", "Position", "format_cursor", "parse_cursor", "parse_position"]

MAX_CURSOR: Final = 4096


class Position(NamedTuple):
    """A place in the life of a channel.

    Attributes:
        epoch: names the life; empty for the beginning.
        offset: counts from 1; 0 is before the first event.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}" if self.epoch else str(self.offset)


BEGINNING: Final = Position("", 0)
"""Before the first event, whatever the epoch."""

Cursor = dict[str, Position]
"""Channel -> position."""

_POSITION = re.compile(r"(?:([0-9a-f]{1,32})\.)?(0|[1-9][0-9]{0,15})")


def parse_position(text: str) -> Position:
    """Read ``epoch.offset``, or ``0``.

    Args:
        text: the position.

    Returns:
        The position.

    Raises:
        InvalidCursor: the text has neither form.
    """
    found = _POSITION.fullmatch(text)
    if found is None or (found[1] is None and found[2] != "0"):
        raise InvalidCursor(f"position {text[:100]!r} must read epoch.offset, or 0 for the beginning", text=text)
    return Position(found[1] or "", int(found[2]))


def parse_cursor(text: str) -> Cursor:
    """Read ``channel=epoch.offset,…``.

    Args:
        text: the cursor; an empty text is an empty cursor.

    Returns:
        The cursor.

    Raises:
        InvalidCursor: over 4,096 characters, or a part does not have that form.
    """
    if len(text) > MAX_CURSOR:
        raise InvalidCursor(f"the cursor has {len(text)} characters; the limit is {MAX_CURSOR}", text=text)
    cursor: Cursor = {}
    for part in filter(None, text.split(",")):
        channel, separator, position = part.strip().partition("=")
        try:
            whole = channel_of(whole_channel(channel))
        except InvalidName as error:
            raise InvalidCursor(f"cursor part {part[:100]!r}: {error}", text=text) from None
        if not separator or whole != channel:
            raise InvalidCursor(f"cursor part {part[:100]!r} must read channel=epoch.offset", text=text)
        cursor[channel] = parse_position(position)
    return cursor


def format_cursor(cursor: Mapping[str, Position]) -> str:
    """Return the text that ``parse_cursor`` reads.

    Args:
        cursor: a position for each channel.
    """
    return ",".join(f"{channel}={position}" for channel, position in cursor.items())
