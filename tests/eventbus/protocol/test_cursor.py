"""Cursors: their form and their limit."""

from __future__ import annotations

import pytest

from eventbus.errors import InvalidCursor
from eventbus.protocol.cursor import MAX_CURSOR, Position, format_cursor, parse_cursor


def test_the_documented_limit_is_4096_characters() -> None:
    part = "user:ann=aa.1"
    fits = part + "," * (4096 - len(part))
    assert MAX_CURSOR == 4096
    assert parse_cursor(fits) == {"user:ann": Position("aa", 1)}
    with pytest.raises(InvalidCursor, match="4096"):
        parse_cursor(fits + ",")


def test_a_cursor_is_read_as_it_was_written() -> None:
    cursor = {"user:ann": Position("aa", 3), "system": Position("", 0)}
    assert parse_cursor(format_cursor(cursor)) == cursor
