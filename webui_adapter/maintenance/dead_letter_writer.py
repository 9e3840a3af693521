"""Burying what cannot be delivered: in Redis, or on this host's disk while Redis takes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Iterable

from eventbus.backends.pending import PendingStore
from eventbus.errors import Refused, TransportError
from webui_adapter.channels.validation import Undeliverable
from webui_adapter.maintenance.dead_letter_file import DeadLetterFile

__all__ = ["DeadLetterWriter"]

log = logging.getLogger(__name__)


class DeadLetterWriter:
    """One of a gateway. ``limit``: how many may wait; ``interval``: seconds between two looks at the disk.

    ``counters`` gets ``dead.{reason}``, and under ``drop``: ``dead_waiting`` for what found no room here,
    ``spill_full`` for what found none on the disk, ``spill_damaged`` for lines of it that cannot be read.
    """

    def __init__(
        self,
        pending_store: PendingStore,
        dead_letter_file: DeadLetterFile | None,
        limit: int,
        interval: float,
        counters: Counter[str],
    ) -> None:
        self._pending_store = pending_store
        self._dead_letter_file = dead_letter_file
        self._limit = limit
        self._interval = interval
        self._counters = counters
        self._waiting: deque[Undeliverable] = deque()
        self._come = asyncio.Event()

    def add(self, undeliverables: Iterable[Undeliverable]) -> None:
        """Note what is to be buried. Never blocks."""
        for undeliverable in undeliverables:
            if len(self._waiting) < self._limit:
                self._waiting.append(undeliverable)
            else:
                self._counters["drop.dead_waiting"] += 1
        self._come.set()

    async def run(self) -> None:
        """Bury as long as the gateway lives; what it leaves waiting then is found again by the next who reads it."""
        while True:
            try:
                if await self._bury_waiting():
                    await self._bury_spilled()
            except Exception:
                # It may meet what nobody has foreseen; the next one is not to be lost for that.
                log.exception("a dead letter could not be buried")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._come.wait()
            self._come.clear()

    async def _bury_waiting(self) -> bool:
        """Whether Redis took all of it."""
        while self._waiting:
            undeliverable = self._waiting[0]
            try:
                await self._bury(undeliverable)
            except TransportError as error:
                log.warning("%d dead letters wait on disk: %s", len(self._waiting), error)
                await self._keep_on_disk()
                return False
            self._waiting.popleft()
        return True

    async def _keep_on_disk(self) -> None:
        undeliverables = list(self._waiting)
        self._waiting.clear()
        kept = (
            0
            if self._dead_letter_file is None
            else await asyncio.to_thread(self._dead_letter_file.append, undeliverables)
        )
        self._counters["drop.spill_full"] += len(undeliverables) - kept

    async def _bury_spilled(self) -> None:
        if self._dead_letter_file is None:
            return
        taken = await asyncio.to_thread(self._dead_letter_file.claim)
        if taken is None:
            return
        undeliverables, damaged = taken
        refused: list[Undeliverable] = []
        try:
            for undeliverable in undeliverables:
                try:
                    await self._bury(undeliverable)
                except Refused as error:
                    # Its channel's trouble, maybe for good: it goes to the end, and holds up nobody else's.
                    log.warning("a dead letter of %s stays on disk: %s", undeliverable.channel, error)
                    refused.append(undeliverable)
        except TransportError as error:
            log.info("%d dead letters stay on disk: %s", len(undeliverables), error)
        else:
            if refused:
                kept = await asyncio.to_thread(self._dead_letter_file.append, refused)
                self._counters["drop.spill_full"] += len(refused) - kept
            await asyncio.to_thread(self._dead_letter_file.commit)
            self._counters["drop.spill_damaged"] += damaged
        finally:
            self._dead_letter_file.release()

    async def _bury(self, undeliverable: Undeliverable) -> None:
        if await self._pending_store.dead_letter(
            undeliverable.channel, undeliverable.id, undeliverable.reason, undeliverable.content
        ):
            self._counters[f"dead.{undeliverable.reason}"] += 1
            log.warning(
                "an event of %s was buried: %s, id %s", undeliverable.channel, undeliverable.reason, undeliverable.id
            )
