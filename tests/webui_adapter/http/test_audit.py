"""Actions of admins over HTTP are in the audit log, those of owners are not."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from eventbus import Bus, BusSettings
from eventbus.backends.redis.audit.audit_log import AuditLog
from tests.webui_adapter.gateway.test_operations import ADMIN, started
from tests.webui_adapter.gateways import GatewayProcess, eventually, token


async def test_cancelling_an_operation_of_another_user(
    gateway: GatewayProcess, redis_url: str, key_prefix: str, user: str, bus: Bus, publish: Callable[..., None]
) -> None:
    for op in ("own", "others"):
        started(bus, user, op)
    url = f"{gateway.http}{gateway.prefix}/operations"

    def cancel(op: str, who: str, **claims: object) -> int:
        headers = {"Authorization": f"Bearer {token(who, **claims)}"}
        return httpx.post(f"{url}/{op}/cancel", params={"user": user}, headers=headers, timeout=10).status_code

    assert cancel("own", user) == 200
    assert cancel("others", "mallory") == 403
    assert cancel("others", "boss", **ADMIN) == 200
    audit = AuditLog(BusSettings(redis_url=redis_url, key_prefix=key_prefix))
    found = [(entry.by, entry.via, entry.ids) for entry in audit.entries(limit=500) if entry.target == f"user:{user}"]
    audit.close()
    assert found == [("boss", "http", ("others",))]
    line = f'"audit": {{"action": "operations.cancel", "by": "boss", "via": "http", "target": "user:{user}"'
    await eventually(lambda: line in gateway.log.read_text(), "the line of the log")
