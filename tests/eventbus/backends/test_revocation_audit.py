"""Each revocation is in the audit log, however it came."""

from __future__ import annotations

from eventbus import BusSettings
from eventbus.backends.redis.access.sessions import AsyncSessions, Sessions
from eventbus.backends.redis.audit.audit_log import AuditLog


def entries(settings: BusSettings) -> list[tuple[str, str, str, str]]:
    audit = AuditLog(settings)
    found = [(entry.action, entry.by, entry.via, entry.target) for entry in audit.entries()]
    audit.close()
    return found


def test_of_the_blocking_client(bus_settings: BusSettings) -> None:
    with Sessions(bus_settings, via="cli") as sessions:
        sessions.end("42", "moved", by="ann")
        sessions.revoke_tokens("42", by="ann")
        sessions.revoke_token("t-1", by="bob")
    assert entries(bus_settings) == [
        ("tokens.revoke", "bob", "cli", "token:t-1"),
        ("tokens.revoke", "ann", "cli", "user:42"),
        ("sessions.end", "ann", "cli", "user:42"),
    ]


async def test_of_the_asynchronous_client(bus_settings: BusSettings) -> None:
    async with AsyncSessions(bus_settings) as sessions:
        await sessions.end("42", by="ann")
    assert entries(bus_settings) == [("sessions.end", "ann", "python", "user:42")]
