"""The audit log: what is written and read, its bounds, and that no action goes without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from eventbus import Bus, BusSettings
from eventbus.backends.audit import AuditEntry
from eventbus.backends.redis.audit.audit_log import AuditLog
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.errors import Refused
from tests.webui_adapter.events import Promise


@pytest.fixture
def audit(bus_settings: BusSettings) -> Iterator[AuditLog]:
    log = AuditLog(bus_settings)
    yield log
    log.close()


def done(action: str = "dead_letters.purge", by: str = "ann", **facts: object) -> AuditEntry:
    return AuditEntry(action, by, "cli", "user:42", **facts)  # type: ignore[arg-type]


def test_the_newest_entry_is_first(audit: AuditLog) -> None:
    for n in range(3):
        audit.record(done(count=n, ids=(f"i{n}",)))
    found = audit.entries()
    assert [entry.count for entry in found] == [2, 1, 0]
    assert found[0] == done(count=2, ids=("i2",), time=found[0].time)
    assert found[0].time >= found[2].time > 0


def test_they_are_narrowed(audit: AuditLog) -> None:
    audit.record(done("dead_letters.purge", "ann"))
    audit.record(done("dead_letters.requeue", "bob"))
    audit.record(done("dead_lettersX", "bob"))
    assert [entry.action for entry in audit.entries(by="bob")] == ["dead_lettersX", "dead_letters.requeue"]
    assert len(audit.entries(action="dead_letters")) == 2
    assert len(audit.entries(action="dead_letters.purge")) == 1
    assert len(audit.entries(limit=1)) == 1
    newest = audit.entries()[0].time
    assert audit.entries(since_ms=newest + 60_000) == []


def test_more_than_one_piece_is_read(audit: AuditLog, bus_settings: BusSettings, redis_url: str) -> None:
    client, key = redis.Redis.from_url(redis_url), Keys.of(bus_settings).audit
    with client.pipeline(transaction=False) as pipeline:
        for n in range(1_201):
            pipeline.xadd(key, {"action": "a.b", "by": "ann" if n == 0 else "bob", "count": n})
        pipeline.expire(key, 60)
        pipeline.execute()
    assert [entry.count for entry in audit.entries(by="ann")] == [0]
    assert len(audit.entries(limit=10_000)) == 1_201


def test_it_is_bounded_in_number_time_and_size(bus_settings: BusSettings, redis_url: str) -> None:
    settings = bus_settings.model_copy(update={"audit_limit": 100})
    audit, client, key = AuditLog(settings), redis.Redis.from_url(redis_url), Keys.of(settings).audit
    for _ in range(450):
        audit.record(done())
    audit.record(done(by="x" * 5_000, ids=tuple("i" * 5_000 for _ in range(50))))
    assert client.xlen(key) <= 300, "100, and what a node of the stream holds"
    assert 0 < client.ttl(key) <= settings.audit_ttl.total_seconds()
    (newest,) = audit.entries(limit=1)
    assert (len(newest.by), len(newest.ids), len(newest.ids[0])) == (200, 20, 200)
    audit.close()


def test_no_action_goes_without_an_entry(bus_settings: BusSettings, redis_url: str) -> None:
    """Redis does not take the entry, so nothing is purged."""
    bus = Bus(bus_settings.model_copy(update={"pending_limit": 1}))
    for n in range(2):
        bus.emit("42", "op", Promise(n=n))
    assert bus.flush(5)
    bus.close()
    client, key = redis.Redis.from_url(redis_url), Keys.of(bus_settings).audit
    client.set(key, "no stream", ex=60)
    dead = DeadLetters(bus_settings)
    with pytest.raises(Refused, match="WRONGTYPE"):
        dead.purge(DeadLetterFilter(channel="42"), by="ann")
    assert len(dead.find(DeadLetterFilter(channel="42"))) == 1
    client.delete(key)
    assert dead.purge(DeadLetterFilter(channel="42"), by="ann", via="cli") == 1
    dead.close()
    audit = AuditLog(bus_settings)
    (entry,) = audit.entries()
    audit.close()
    assert (entry.action, entry.by, entry.via, entry.target, entry.count) == (
        "dead_letters.purge",
        "ann",
        "cli",
        "user:42",
        1,
    )


def run(settings: BusSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "EVENTBUS_REDIS_URL": settings.redis_url,
        "EVENTBUS_KEY_PREFIX": settings.key_prefix,
    }
    command = [sys.executable, "-m", "eventbus", "audit", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_command_line(audit: AuditLog, bus_settings: BusSettings) -> None:
    assert run(bus_settings).returncode == 1
    audit.record(done(count=7, ids=("i1",)))
    shown = run(bus_settings, "--since", "1h")
    assert shown.returncode == 0
    assert shown.stdout.split()[2:] == ["ann", "cli", "dead_letters.purge", "7", "user:42"]
    facts = json.loads(run(bus_settings, "--json").stdout)
    assert facts["ids"] == ["i1"]
    assert run(bus_settings, "--by", "bob").returncode == 1
    assert run(bus_settings, "--since", "long").returncode == 2
