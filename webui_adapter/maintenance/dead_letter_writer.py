"""The writer of dead letters: to Redis, or to this host's disk while Redis accepts no writes."""

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
    """Moves the undeliverable events of one gateway to the dead letters."""

    def __init__(
        self,
        pending_store: PendingStore,
        dead_letter_file: DeadLetterFile | None,
        limit: int,
        interval: float,
        counters: Counter[str],
    ) -> None:
        """Begin with an empty queue.

        Args:
            pending_store: The dead letters in Redis.
            dead_letter_file: The dead letters on disk; None: events that Redis does not accept are dropped.
            limit: How many events may be queued.
            interval: Seconds between two checks of the file.
            counters: Receives ``dead.{reason}``, ``drop.dead_waiting`` for events without room in the queue,
                ``drop.spill_full`` for events without room on disk, ``drop.spill_damaged`` for damaged lines.
        """
        self._pending_store = pending_store
        self._dead_letter_file = dead_letter_file
        self._limit = limit
        self._interval = interval
        self._counters = counters
        self._queue: deque[Undeliverable] = deque()
        self._work = asyncio.Event()

    def add(self, undeliverables: Iterable[Undeliverable]) -> None:
        """Queue events. Never blocks.

        Args:
            undeliverables: The events.
        """
        for undeliverable in undeliverables:
            if len(self._queue) < self._limit:
                self._queue.append(undeliverable)
            else:
                self._counters["drop.dead_waiting"] += 1
        self._work.set()

    async def run(self) -> None:
        """Write dead letters as long as the gateway lives. A later reader rejects what is still queued then."""
        while True:
            try:
                if await self._write_queued():
                    await self._move_from_disk()
            except Exception:
                # An unforeseen error must not stop the writer.
                log.exception("cannot write a dead letter")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._work.wait()
            self._work.clear()

    async def _write_queued(self) -> bool:
        """Return whether Redis accepted all of them."""
        while self._queue:
            undeliverable = self._queue[0]
            try:
                await self._write(undeliverable)
            except TransportError as error:
                log.warning("cannot write %d dead letters to Redis; they wait on disk: %s", len(self._queue), error)
                await self._keep_on_disk()
                return False
            self._queue.popleft()
        return True

    async def _keep_on_disk(self) -> None:
        undeliverables = list(self._queue)
        self._queue.clear()
        kept = (
            0
            if self._dead_letter_file is None
            else await asyncio.to_thread(self._dead_letter_file.append, undeliverables)
        )
        self._counters["drop.spill_full"] += len(undeliverables) - kept

    async def _move_from_disk(self) -> None:
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
                    await self._write(undeliverable)
                except Refused as error:
                    # Only this channel fails, maybe forever: the event goes to the end and delays no other.
                    log.warning("cannot write a dead letter of %s; it stays on disk: %s", undeliverable.channel, error)
                    refused.append(undeliverable)
        except TransportError as error:
            log.info("cannot write %d dead letters; they stay on disk: %s", len(undeliverables), error)
        else:
            if refused:
                kept = await asyncio.to_thread(self._dead_letter_file.append, refused)
                self._counters["drop.spill_full"] += len(refused) - kept
            await asyncio.to_thread(self._dead_letter_file.commit)
            self._counters["drop.spill_damaged"] += damaged
        finally:
            self._dead_letter_file.release()

    async def _write(self, event: Undeliverable) -> None:
        if await self._pending_store.dead_letter(event.channel, event.id, event.reason, event.content):
            self._counters[f"dead.{event.reason}"] += 1
            log.warning("moved an event of %s to the dead letters: %s, id %s", event.channel, event.reason, event.id)
