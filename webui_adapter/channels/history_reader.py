"""Readings of a channel's history: how far back, how much at once, and once for all who ask for the same."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from eventbus.backends.ports import Reader
from eventbus.protocol.history import History, Page
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.session.channel_subscription import ChannelSubscription
from webui_adapter.session.session import Session

__all__ = ["SNAPSHOT_ONLY", "HistoryRange", "HistoryReader", "range_for"]


class HistoryRange(NamedTuple):
    """How much of a channel's log is read: above which offset (None: nothing of it), and how much at once."""

    after: int | None
    page: Page | None


SNAPSHOT_ONLY: Final = HistoryRange(None, None)


def range_for(session: Session, subscription: ChannelSubscription) -> HistoryRange:
    """Return what a subscription needs of its channel's history.

    Args:
        session: The session, whose settings name the size of a page.
        subscription: What it reads of the channel.

    Returns:
        The range. It has no pages if the new topic begins elsewhere than the topics that the client had before.
    """
    recovery = subscription.recovery
    if recovery is None:
        return SNAPSHOT_ONLY
    if recovery.since is None or (recovery.recovered_topics and recovery.delivered_offset != recovery.since.offset):
        return HistoryRange(recovery.after, None)
    settings = session.output.settings
    return HistoryRange(recovery.after, Page(settings.replay_events, settings.replay_bytes))


class HistoryReader:
    """Works for one gateway."""

    def __init__(self, reader: Reader, validator: RecordValidator) -> None:
        self._reader = reader
        self._validator = validator
        self._under_way: dict[tuple[str, HistoryRange], asyncio.Task[History]] = {}

    async def read_shared(self, name: str, wanted: HistoryRange) -> History:
        """Read once for all who ask for the same at the same time. Raises Unavailable, Refused, InvalidRecord."""
        key = (name, wanted)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self.read(name, wanted))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def read(self, name: str, wanted: HistoryRange) -> History:
        """Read history from now on: not what somebody else has begun to read. Raises as ``read_shared``."""
        return self._validator.filter_history(name, await self._reader.read(name, wanted.after, wanted.page))

    def cancel(self) -> None:
        """End those that are under way."""
        for task in self._under_way.values():
            task.cancel()
