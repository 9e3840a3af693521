"""The subscriber's connection: which answer belongs to which command."""

from __future__ import annotations

import pytest

from eventbus.errors import InvalidRecord
from eventbus.redis.subscriber import _Connection
from eventbus.wire import parse_publication


def answer(kind: bytes, channel: bytes) -> bytes:
    return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(kind), kind, len(channel), channel)


async def test_each_subscribe_waits_for_its_own_acknowledgement():
    connection = _Connection(lambda *_: None, lambda: None, lambda _: None)
    (first,) = connection.subscribe("x")
    connection.send("UNSUBSCRIBE", "x")
    (second,) = connection.subscribe("x")
    connection.data_received(answer(b"subscribe", b"x"))
    assert first.done()
    assert not second.done()
    connection.data_received(answer(b"unsubscribe", b"x") + answer(b"subscribe", b"x"))
    assert second.done()


def test_an_epoch_that_is_no_text_is_no_publication_of_ours():
    with pytest.raises(InvalidRecord):
        parse_publication(b"\xff 0\n1 n log 0 0 a.b user:1:x -\n{}")
