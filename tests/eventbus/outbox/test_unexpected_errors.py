"""An error that is not on the list of refusals drops nothing, is logged with the address, and makes ``flush`` False."""

from __future__ import annotations

import logging
import select
import socketserver
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import hiredis
import pytest

from eventbus import Bus, BusSettings, Event
from eventbus.backends.memory.adapters import MemoryBroker, MemoryPublisher
from eventbus.backends.ports import Published, Request
from eventbus.backends.redis.connections.errors import classify
from eventbus.errors import Unavailable
from eventbus.events.encoder import Emission, EmissionBuilder
from eventbus.outbox.outbox import Outbox
from tests.conftest import wait_until


class Item(Event, name="unexpected.item"):
    n: int


BUILDER = EmissionBuilder(BusSettings())


class Strange(MemoryPublisher):
    """Fails with an error, as a whole or for one user, until it is repaired."""

    def __init__(self, broker: MemoryBroker, error: Exception, user: str | None) -> None:
        super().__init__(broker)
        self.error: Exception | None = error
        self._user = user

    def publish(self, requests: Sequence[Request]) -> list[Published | Exception]:
        error = self.error
        if error is not None and self._user is None:
            raise error
        bad = f"user:{self._user}"
        if (
            error is not None
            and not isinstance(error, Unavailable)
            and any(request.channel == bad for request in requests)
        ):
            raise error
        return [
            error if error is not None and request.channel == bad else super(Strange, self).publish([request])[0]
            for request in requests
        ]


ERRORS = [
    classify(hiredis.ReplyError("MOVED 11289 127.0.0.1:7001")),
    classify(hiredis.ReplyError("ERR unknown command 'EVALSHA'")),
    classify(hiredis.ReplyError("NOPERM this user has no permissions")),
    AttributeError("module 'select' has no attribute 'poll'"),
    ValueError("a bug of this library"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("user", [None, "bob"], ids=["of all", "of one"])
def test_events_wait_until_the_error_is_gone(error: Exception, user: str | None, caplog, tmp_path: Path) -> None:
    settings = BusSettings(
        spool_dir=tmp_path,
        retry_min=0.001,
        retry_max=0.005,
        redis_url="redis://example.test:7/0",
        unexpected_tries=1_000_000,
    )
    publisher = Strange(MemoryBroker(settings), error, user)
    outbox = Outbox(settings, lambda: publisher)
    events = [BUILDER.build(f"user:{name}:operation:1", Item(n=n)) for n in range(3) for name in ("ann", "bob")]
    with caplog.at_level(logging.WARNING):
        for event in events:
            outbox.put(event)
        assert not outbox.flush(0.2)
    assert not outbox.dropped
    assert {event.receipt.status for event in events if event.channel == "user:bob"} == {"waiting"}
    assert bool(outbox.unexpected) is not isinstance(error, Unavailable)
    assert "example.test:7" in caplog.text
    assert "EVENTBUS_REDIS_URL" in caplog.text
    publisher.error = None
    wait_until(lambda: outbox.flush(1), "all events")
    assert {event.receipt.status for event in events} == {"published"}
    for name in ("ann", "bob"):
        offsets = [event.receipt.offset for event in events if event.channel == f"user:{name}"]
        assert offsets == [1, 2, 3]
    outbox.close(1)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_events_reach_the_disk_when_the_process_ends(error: Exception, tmp_path: Path) -> None:
    settings = BusSettings(spool_dir=tmp_path, retry_min=0.001)
    outbox = Outbox(settings, lambda: Strange(MemoryBroker(settings), error, None))
    event = BUILDER.build("user:ann:operation:1", Item(n=1))
    outbox.put(event)
    assert not outbox.close(0.05)
    assert event.receipt.status == "spooled"


def test_an_event_that_has_no_bytes_does_not_keep_others_from_the_disk(tmp_path: Path) -> None:
    settings = BusSettings(spool_dir=tmp_path, retry_min=0.001)
    outbox = Outbox(settings, lambda: Strange(MemoryBroker(settings), Unavailable("down"), None))
    events: list[Emission] = [BUILDER.build("user:ann:operation:1", Item(n=n)) for n in range(3)]
    events[1].tail = "\ud800"  # type: ignore[assignment] # a bug of this library
    for event in events:
        outbox.put(event)
    outbox.close(0.01)
    assert [event.receipt.status for event in events] == ["spooled", "dropped", "spooled"]


class _Web(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(1000)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.fixture
def web_server() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()


def test_another_server_behind_the_port_costs_no_event(web_server: str, tmp_path: Path) -> None:
    bus = Bus(BusSettings(redis_url=web_server, spool_dir=tmp_path))
    receipt = bus.emit("ann", "1", Item(n=1))
    assert not bus.flush(0.3)
    assert receipt.status == "waiting"
    bus.close()
    assert receipt.status == "spooled"


def test_a_process_without_poll_sends(redis_server, bus_settings: BusSettings, monkeypatch) -> None:
    monkeypatch.delattr(select, "poll")
    bus = Bus(bus_settings)
    for n in range(3):
        receipt = bus.emit("ann", "1", Item(n=n))
        assert bus.flush(5)
        assert receipt.status == "published"
    bus.close()


def test_an_error_of_everything_drops_nothing(tmp_path: Path) -> None:
    settings = BusSettings(spool_dir=tmp_path, retry_min=0.001, retry_max=0.002, unexpected_tries=3)
    outbox = Outbox(settings, lambda: Strange(MemoryBroker(settings), ValueError("a bug"), None))
    events = [BUILDER.build(f"user:{name}:operation:1", Item(n=n)) for n in range(3) for name in ("ann", "bob")]
    for event in events:
        outbox.put(event)
    wait_until(lambda: outbox.unexpected > 10, "more tries than the setting")
    assert not outbox.close(0.05)
    assert not outbox.dropped
    assert {event.receipt.status for event in events} == {"spooled"}
