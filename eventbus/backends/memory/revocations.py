"""Revocations in the process, as ``revoke.lua`` and ``changes.lua`` keep them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from eventbus.backends.memory.broker import MemoryBroker
from eventbus.backends.revocations import CHANGES_PER_READING, ENDED_LIFE, Revocation, RevocationRequest
from eventbus.clock import now_ms
from eventbus.errors import TooManyRevocations

__all__ = ["MemoryRevocations"]


class MemoryRevocations:
    """``RevocationStore`` over a broker in this process.

    Args:
        broker: keeps the data.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._known = broker.revocations
        self._limit = broker.settings.revocation_limit
        self._life = broker.settings.revocation_ttl.total_seconds()

    async def revoke(self, request: RevocationRequest) -> Revocation:
        """See ``RevocationStore``."""
        now = now_ms()
        for member in [member for member, old in self._known.items() if old.until <= now]:
            del self._known[member]
        earlier = self._known.get(request.member)
        if earlier is None and len(self._known) >= self._limit:
            raise TooManyRevocations(self._limit)
        before = request.issued_before or math.floor(now / 1000) + 1
        last = max((old.number for old in self._known.values()), default=0)
        number = max(now * 1000, last + 1)
        life = min(self._life, ENDED_LIFE) if request.kind == "sessions" else self._life
        until = now + math.ceil(life) * 1000
        revocation = Revocation(request.kind, request.subject, before, now, until, request.by, request.reason, number)
        if earlier is not None:
            later = max(revocation.until, earlier.until)
            revocation = replace(revocation, issued_before=max(before, earlier.issued_before), until=later)
        self._known[request.member] = revocation
        return revocation

    async def changes(self, after: int) -> Sequence[Revocation]:
        """See ``RevocationStore``."""
        newer = [revocation for revocation in self._known.values() if revocation.number > after]
        return sorted(newer, key=lambda revocation: revocation.number)[:CHANGES_PER_READING]
