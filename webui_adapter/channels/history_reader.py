"""Reads a channel's history: how far back, how much at a time, and once for all sessions that need the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from eventbus.backends.ports import Reader
from eventbus.protocol.formats import FORMAT
from eventbus.protocol.history import History, Page
from webui_adapter.channels.validation import RecordValidator
from webui_adapter.session.channel_subscription import ChannelSubscription
from webui_adapter.session.session import Session

__all__ = ["SNAPSHOT_ONLY", "HistoryRange", "HistoryReader", "range_for"]


class HistoryRange(NamedTuple):
    """How much of a channel's history is read.

    Attributes:
        after: The offset above which the log is read; None: only the present state.
        page: How much to read at a time; None: everything.
    """

    after: int | None
    page: Page | None


SNAPSHOT_ONLY: Final = HistoryRange(None, None)
"""The present state of a channel, without its log."""


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
    """Reads histories for one gateway."""

    def __init__(
        self,
        reader: Reader,
        validator: RecordValidator,
        newer_format: Callable[[str, int], None] = lambda _channel, _format: None,
    ) -> None:
        """Begin without a reading.

        Args:
            reader: Reads from Redis.
            validator: Removes events that cannot be delivered.
            newer_format: Called with a channel and its format, if the format is not known here.
        """
        self._newer_format = newer_format
        self._reader = reader
        self._validator = validator
        self._under_way: dict[tuple[str, HistoryRange], asyncio.Task[History]] = {}

    async def read_shared(self, name: str, required: HistoryRange) -> History:
        """Read a history once for all that need the same range at the same time.

        Args:
            name: The channel.
            required: The range.

        Returns:
            The history without undeliverable events.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses the command.
            InvalidRecord: The history cannot be read.
        """
        key = (name, required)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self.read(name, required))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def read(self, name: str, required: HistoryRange) -> History:
        """Read a history as it is from now on, not one that is already being read.

        Args:
            name: The channel.
            required: The range.

        Returns:
            The history without undeliverable events.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses the command.
            InvalidRecord: The history cannot be read.
        """
        history = await self._reader.read(name, required.after, required.page)
        if history.format > FORMAT:
            self._newer_format(name, history.format)
        return self._validator.filter_history(name, history)

    async def fork(self, name: str, epoch: str) -> bool:
        """End an epoch whose data went back in time. No cursor of it is valid then.

        Args:
            name: The channel.
            epoch: The epoch to end.

        Returns:
            False if another process has ended it.

        Raises:
            Unavailable: Redis cannot be reached.
            Refused: Redis refuses the command.
        """
        return await self._reader.fork(name, epoch)

    def cancel(self) -> None:
        """Cancel every reading."""
        for task in self._under_way.values():
            task.cancel()
