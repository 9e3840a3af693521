"""A process states whether its last write is there: what it knows, and what that proves in durable mode. No server."""

from __future__ import annotations

import pytest

from eventbus import BusSettings
from eventbus.backends.redis.connections.voter import Voter
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.protocol.cursor import Position
from eventbus.redis_url import Endpoint

HERE, THERE = Endpoint("10.0.0.1", 6379), Endpoint("10.0.0.2", 6379)
LAST = Position("e1", 7)
ENTRY = b"1000 aaaaaaaaaa"


def voter(durable: str, *, hears: bool) -> Voter:
    """A process whose last write was to the first server: an event that it published, or one that it received."""
    settings = BusSettings(durable=durable, spool=False)
    one = Voter(settings, Keys("eb"), active=True, heard=(lambda: ("user:1", LAST)) if hears else None)
    one._implied = None
    one.answer([], server=HERE)
    assert one.joined([b"clean", b"aaaaaaaaaa.0", b"-", b"1000"])
    one._implied = None  # received since then
    if not hears:
        one.note_write("user:1", LAST)
    return one


def statement(one: Voter, server: Endpoint, entry: bytes | None, offset: int) -> object:
    assert len(one.questions()) == 2
    return one.answer([entry, [b"e1", b"%d" % offset, None, None]], server=server)[6]


@pytest.mark.parametrize(
    ("durable", "hears", "server", "entry", "offset", "said"),
    [
        ("replicas", True, THERE, ENTRY, 7, "intact"),
        ("replicas", True, THERE, ENTRY, 6, "unconfirmed"),
        ("replicas", True, THERE, None, 6, "unconfirmed"),
        ("replicas", True, HERE, ENTRY, 6, "gone"),
        ("none", True, THERE, ENTRY, 6, "gone"),
        ("replicas", False, THERE, ENTRY, 7, "intact"),
        ("replicas", False, THERE, ENTRY, 6, "gone"),
        ("replicas", False, THERE, None, 7, "unconfirmed"),
        ("replicas", False, HERE, None, 7, "gone"),
        ("none", False, THERE, None, 7, "gone"),
    ],
)
def test_statement(durable: str, hears: bool, server: Endpoint, entry: bytes | None, offset: int, said: str) -> None:
    """Only a write that was confirmed to its writer proves a loss, if another server took over in durable mode."""
    assert statement(voter(durable, hears=hears), server, entry, offset) == said
