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
        self, letters: PendingStore, spill: DeadLetterFile | None, limit: int, interval: float, counters: Counter[str]
    ) -> None:
        self._letters = letters
        self._spill = spill
        self._limit = limit
        self._interval = interval
        self._counters = counters
        self._waiting: deque[Undeliverable] = deque()
        self._come = asyncio.Event()

    def take(self, corpses: Iterable[Undeliverable]) -> None:
        """Note what is to be buried. Never blocks."""
        for corpse in corpses:
            if len(self._waiting) < self._limit:
                self._waiting.append(corpse)
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
            corpse = self._waiting[0]
            try:
                await self._bury(corpse)
            except TransportError as error:
                log.warning("%d dead letters wait on disk: %s", len(self._waiting), error)
                await self._keep_on_disk()
                return False
            self._waiting.popleft()
        return True

    async def _keep_on_disk(self) -> None:
        corpses = list(self._waiting)
        self._waiting.clear()
        kept = 0 if self._spill is None else await asyncio.to_thread(self._spill.append, corpses)
        self._counters["drop.spill_full"] += len(corpses) - kept

    async def _bury_spilled(self) -> None:
        if self._spill is None:
            return
        taken = await asyncio.to_thread(self._spill.take)
        if taken is None:
            return
        corpses, damaged = taken
        refused: list[Undeliverable] = []
        try:
            for corpse in corpses:
                try:
                    await self._bury(corpse)
                except Refused as error:
                    # Its channel's trouble, maybe for good: it goes to the end, and holds up nobody else's.
                    log.warning("a dead letter of %s stays on disk: %s", corpse.channel, error)
                    refused.append(corpse)
        except TransportError as error:
            log.info("%d dead letters stay on disk: %s", len(corpses), error)
        else:
            if refused:
                kept = await asyncio.to_thread(self._spill.append, refused)
                self._counters["drop.spill_full"] += len(refused) - kept
            await asyncio.to_thread(self._spill.done)
            self._counters["drop.spill_damaged"] += damaged
        finally:
            self._spill.put_back()

    async def _bury(self, corpse: Undeliverable) -> None:
        if await self._letters.dead_letter(corpse.channel, corpse.id, corpse.reason, corpse.content):
            self._counters[f"dead.{corpse.reason}"] += 1
            log.warning("an event of %s was buried: %s, id %s", corpse.channel, corpse.reason, corpse.id)
