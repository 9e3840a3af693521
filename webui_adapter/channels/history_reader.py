"""Readings of a channel's history: how far back, how much at once, and once for all who ask for the same."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from eventbus.backends.ports import Reader
from eventbus.protocol.history import History, Page
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.session.channel_view import ChannelSubscription
from webui_adapter.session.session import Session

__all__ = ["NO_PAST", "HistoryRange", "HistoryReader", "extent"]


class HistoryRange(NamedTuple):
    """How much of a channel's log is read: above which offset (None: nothing of it), and how much at once."""

    after: int | None
    page: Page | None


NO_PAST: Final = HistoryRange(None, None)


def extent(session: Session, view: ChannelSubscription) -> HistoryRange:
    """What a session's view needs. One who wants an older past beside what has come already gets it in one piece."""
    if view.since is None or (view.settled and view.delivered != view.since.offset):
        return HistoryRange(view.after, None)
    return HistoryRange(view.after, Page(session.settings.replay_events, session.settings.replay_bytes))


class HistoryReader:
    """Works for one gateway."""

    def __init__(self, reader: Reader, sieve: RecordValidator) -> None:
        self._reader = reader
        self._sieve = sieve
        self._under_way: dict[tuple[str, HistoryRange], asyncio.Task[History]] = {}

    async def shared(self, name: str, wanted: HistoryRange) -> History:
        """Read once for all who ask for the same at the same time. Raises Unavailable, Refused, InvalidRecord."""
        key = (name, wanted)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self.anew(name, wanted))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def anew(self, name: str, wanted: HistoryRange) -> History:
        """Read history from now on: not what somebody else has begun to read. Raises as ``shared``."""
        return self._sieve.history(name, await self._reader.read(name, wanted.after, wanted.page))

    def cancel(self) -> None:
        """End those that are under way."""
        for task in self._under_way.values():
            task.cancel()
