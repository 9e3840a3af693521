"""Reads revocations, and ends the sessions that they concern.

A publication says that there is a new one. It can be lost, so each instance also reads at the start, after each loss
of Redis, and once per interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from eventbus.backends.revocations import CHANGES_PER_READING, Revocation, RevocationRequest, RevocationStore
from eventbus.errors import TransportError
from webui_adapter.access.revocations import Revocations, concerns
from webui_adapter.context import GatewayContext
from webui_adapter.protocol.close_codes import CloseCode
from webui_adapter.session.session import Session

__all__ = ["RevocationMonitor"]

log = logging.getLogger(__name__)

# Clocks of Redis and of this machine may differ by this, in milliseconds.
_CLOCK_SLACK_MS: Final = 5_000


class RevocationMonitor:
    """Keeps the revocations of one gateway up to date.

    Attributes:
        known: The revoked tokens.
        read_at: The clock's time of the last successful reading; None before the first.
    """

    def __init__(
        self,
        context: GatewayContext,
        store: RevocationStore,
        known: Revocations,
        sessions: Mapping[str, Session],
    ) -> None:
        """Begin without a revocation; ``run`` reads them.

        Args:
            context: The gateway's settings, clock and counters.
            store: The revocations of all gateways.
            known: Receives the revoked tokens.
            sessions: The open sessions by id.
        """
        self.known = known
        self.read_at: float | None = None
        self._interval = context.settings.revocation_interval
        self._clock = context.clock
        self._counters = context.counters
        self._flush = context.flush
        self._store = store
        self._sessions = sessions
        self._began_ms = context.clock.wall() * 1000
        self._last = 0
        self._soon = asyncio.Event()
        self._failing = False

    def wake(self) -> None:
        """Read soon: something was revoked, or Redis is back."""
        self._soon.set()

    async def revoke(self, request: RevocationRequest) -> Revocation:
        """Revoke at all gateways.

        Args:
            request: What to revoke.

        Returns:
            The revocation.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses a command.
            TooManyRevocations: There are as many as may be.
        """
        revocation = await self._store.revoke(request)
        self.wake()
        return revocation

    async def all(self) -> list[Revocation]:
        """Return all revocations that Redis keeps.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses a command.
        """
        found: list[Revocation] = []
        while True:
            part = await self._store.changes(found[-1].number if found else 0)
            found += part
            if len(part) < CHANGES_PER_READING:
                return found

    async def run(self) -> None:
        """Read changes as long as the gateway lives."""
        while True:
            self._soon.clear()
            try:
                await self.read()
                self._failing = False
            except TransportError as error:
                if not self._failing:
                    log.warning("cannot read revocations: %s; those that are known stay in force", error)
                self._failing = True
            except Exception:
                # A monitor that has ended would let in all users whose tokens are revoked later.
                log.exception("cannot read revocations")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._soon.wait()

    async def read(self) -> None:
        """Read all changes, and carry them out.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses a command.
        """
        first, number = self.read_at is None, CHANGES_PER_READING
        while number == CHANGES_PER_READING:
            changes = await self._store.changes(self._last)
            number = len(changes)
            if changes:
                self._last = changes[-1].number
                self._carry_out([change for change in changes if not (first and self._is_past(change))])
        self.read_at = self._clock.now()

    def _is_past(self, change: Revocation) -> bool:
        """Return whether sessions were ended before this process began: it has none of them."""
        return change.kind == "sessions" and change.at < self._began_ms - _CLOCK_SLACK_MS

    def _carry_out(self, changes: Sequence[Revocation]) -> None:
        self.known.add(changes, self._clock.wall() * 1000)
        of_user: dict[str, list[Revocation]] = {}
        of_token = {change.subject: change for change in changes if change.kind == "token"}
        for change in changes:
            if change.kind != "token":
                of_user.setdefault(change.subject, []).append(change)
        ended = 0
        for session in self._sessions.values():
            principal = session.principal
            if principal is None or session.output.close_code is not None:
                continue
            possible = of_user.get(principal.user, [])
            if principal.token_id in of_token:
                possible = [*possible, of_token[principal.token_id]]
            found = next((change for change in possible if concerns(change, principal)), None)
            if found is not None:
                session.close(CloseCode.REVOKED, close_reason(found))
                ended += 1
        if ended:
            self._counters["revoked"] += ended
            log.info("ended %d sessions, because they were ended or their tokens were revoked", ended)
            self._flush()


def close_reason(revocation: Revocation) -> str:
    """Return the reason text of a close code.

    Args:
        revocation: why the connection is closed.
    """
    text = "the session was ended" if revocation.kind == "sessions" else "the token was revoked"
    return f"{text}: {revocation.reason}" if revocation.reason else text
