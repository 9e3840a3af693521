"""Blocking access to operations, for applications and scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts import operations
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.clock import now_ms
from eventbus.operations.changes import event_stamp
from eventbus.operations.events import OperationRef
from eventbus.operations.state import OperationState
from eventbus.operations.store import OperationInfo
from eventbus.protocol.topics import check_id, user_channel
from eventbus.settings import BusSettings

__all__ = ["Operations"]


class Operations:
    """What there is, how far it is, and stopping it. One connection, for one thread at a time; a context manager.

    Every method raises Unavailable or Refused, and InvalidName for a malformed user or operation.
    """

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings()
        self._keys = Keys(self._settings.key_prefix)
        self._redis = RedisPublisher(self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection up."""
        self._redis.close()

    def of(self, user: str, limit: int = 50, states: Sequence[OperationState] = ()) -> list[OperationInfo]:
        """A user's operations, the newest first; in one of the states, where some are named."""
        return self._redis.run(operations.list_operations(self._keys, user_channel(user), limit, states))

    def get(self, user: str, op: str) -> OperationInfo | None:
        """One operation and what runs of it."""
        call = operations.describe(self._settings, self._keys, user_channel(user), check_id(op, "op"))
        return self._redis.run(call)

    def cancel(self, user: str, op: str) -> OperationInfo | None:
        """Stop an operation: what is queued will not run, what runs is told. None: there is no such operation."""
        channel = user_channel(user)
        known = self.get(user, op)
        if known is None or _too_late(known):
            return known
        # Workers are told first: an operation that says so must not go on.
        self._redis.execute(*operations.tell_cancelled(self._settings, self._keys, channel, op, now_ms()))
        self._redis.run(operations.cancel(self._settings, self._keys, channel, op, event_stamp("")))
        return self.get(user, op)

    # --- a worker's ------------------------------------------------------------------------------------------

    def cancelled(self, since_ms: int) -> list[tuple[OperationRef, int]]:
        """Operations that were to stop from a moment on, and when that was (milliseconds since 1970)."""
        (found,) = self._redis.execute(operations.cancelled_since(self._keys, since_ms))
        members = (found[i].decode().rpartition(" ") for i in range(0, len(found), 2))
        refs = (OperationRef(channel.removeprefix("user:"), op) for channel, _, op in members)
        return list(zip(refs, (int(float(score)) for score in found[1::2]), strict=True))

    def cancelled_of(self, refs: Sequence[OperationRef]) -> set[OperationRef]:
        """Those of the operations that somebody wants stopped."""
        members = [(user_channel(ref.user), ref.op) for ref in refs]
        (scores,) = self._redis.execute(operations.cancelled_of(self._keys, members))
        return {ref for ref, score in zip(refs, scores, strict=True) if score is not None}

    def renew(self, running: Mapping[OperationRef, Sequence[str]], lease: float) -> dict[OperationRef, list[str]]:
        """Say of leaves that they run, for ``lease`` seconds from now. Returns those that had been taken for lost: they
        are to be marked as started again. What has ended meanwhile, or waits for its next try, stays as it is.
        """
        if not running:
            return {}
        until = now_ms() + int(lease * 1000)
        commands, answers = [operations.index_lives(self._settings, self._keys)], []
        for ref, tasks in running.items():
            channel = user_channel(ref.user)
            commands += operations.renew(self._keys, channel, ref.op, tasks, until, self._life(ref.user))
            answers.append(len(commands) - 1)
        replies = self._redis.execute(*commands)
        lost = {
            ref: [task for task, is_ in zip(tasks, replies[at], strict=True) if is_ is not None and is_[:1] == b"l"]
            for at, (ref, tasks) in zip(answers, running.items(), strict=True)
        }
        return {ref: tasks for ref, tasks in lost.items() if tasks}

    def _life(self, user: str) -> int:
        return math.ceil(self._settings.channel_ttl(user_channel(user)) * 1.125)


def _too_late(info: OperationInfo) -> bool:
    """Whether there is nothing to stop. Of one that was cancelled workers are told again: they may not have heard."""
    return info.over and info.state != "cancelled"
