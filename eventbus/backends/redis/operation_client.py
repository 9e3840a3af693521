"""The blocking client of operations, for applications, scripts and workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from eventbus.backends.redis.publisher import RedisPublisher
from eventbus.backends.redis.scripts import operations
from eventbus.backends.redis.scripts.constants import with_slack
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.operations.changes import event_stamp
from eventbus.operations.events import OperationRef
from eventbus.operations.state import OperationState
from eventbus.operations.store import OperationInfo
from eventbus.protocol.topics import UserId, check_id, user_channel
from eventbus.settings import BusSettings

__all__ = ["Operations", "is_too_late"]

# Cancellations of so long a time are read again, in case the server's clock was set back.
_REPEATED_MS: Final = 10_000


class Operations:
    """Lists, describes and cancels operations. It has one connection, for one thread at a time; a
    context manager.

    Every method raises ``Unavailable`` or ``Refused``, and ``InvalidName`` for a malformed user or
    operation.

    Args:
        settings: address, limits and the keys' prefix; the default reads the environment.
    """

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings or BusSettings()
        self._keys = Keys.of(self._settings)
        self._redis = RedisPublisher(self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()

    def of(self, user: UserId, limit: int = 50, states: Sequence[OperationState] = ()) -> list[OperationInfo]:
        """List a user's operations, the newest first.

        Args:
            user: the user's id.
            limit: maximum number of operations.
            states: only operations in one of these states; empty: in any state.

        Returns:
            The operations, without their running tasks.
        """
        return self._redis.run(operations.list_operations(self._keys, user_channel(user), limit, states))

    def get(self, user: UserId, op: str) -> OperationInfo | None:
        """Read one operation and its running tasks.

        Args:
            user: the user's id.
            op: the operation's id.

        Returns:
            The operation; None if it is unknown.
        """
        call = operations.describe(self._settings, self._keys, user_channel(user), check_id(op, "op"))
        return self._redis.run(call)

    def cancel(self, user: UserId, op: str) -> OperationInfo | None:
        """Cancel an operation: its queued tasks will not run, and its running tasks receive the
        request.

        Args:
            user: the user's id.
            op: the operation's id.

        Returns:
            The operation; None if it is unknown.
        """
        channel = user_channel(user)
        known = self.get(user, op)
        if known is None or is_too_late(known):
            return known
        # Workers get the request first: an operation that reports ``cancelled`` must not run.
        now = self._redis.server_ms()
        self._redis.execute(*operations.publish_cancelled(self._settings, self._keys, channel, op, now))
        format_ = self._redis.format_to_write()
        self._redis.run(operations.cancel(self._settings, self._keys, channel, op, event_stamp(""), format_))
        return self.get(user, op)

    # --- for workers -------------------------------------------------------------------------------------------

    def cancelled(self, since_ms: int) -> list[tuple[OperationRef, int]]:
        """List operations that were cancelled since a time.

        Args:
            since_ms: the server's milliseconds since 1970.

        Returns:
            The operations, each with the time of its cancellation in milliseconds since 1970.
        """
        since_ms = min(since_ms, self._redis.server_ms() - _REPEATED_MS)
        (found,) = self._redis.execute(operations.cancelled_since(self._keys, since_ms))
        members = (found[i].decode().rpartition(" ") for i in range(0, len(found), 2))
        refs = (OperationRef(channel.removeprefix("user:"), op) for channel, _, op in members)
        return list(zip(refs, (int(float(score)) for score in found[1::2]), strict=True))

    def cancelled_of(self, refs: Sequence[OperationRef]) -> set[OperationRef]:
        """Return those of the operations that were cancelled.

        Args:
            refs: the operations.
        """
        members = [(user_channel(ref.user), ref.op) for ref in refs]
        (scores,) = self._redis.execute(operations.cancelled_of(self._keys, members))
        return {ref for ref, score in zip(refs, scores, strict=True) if score is not None}

    def renew(self, running: Mapping[OperationRef, Sequence[str]], lease: float) -> dict[OperationRef, list[str]]:
        """Renew the leases of running tasks. Tasks that have ended or wait for a retry stay as they
        are.

        Args:
            running: keys of the running tasks of each operation.
            lease: seconds from now.

        Returns:
            The tasks that were lost. The caller must record them as started again.
        """
        if not running:
            return {}
        calls = []
        for ref, tasks in running.items():
            channel = user_channel(ref.user)
            life = with_slack(max(self._settings.channel_ttl(channel), self._settings.part_patience.total_seconds()))
            calls.append(operations.renew(self._keys, channel, ref.op, tasks, int(lease * 1000), life))
        states = self._redis.run_all(calls, before=[operations.expire_lease_index(self._settings, self._keys)])
        lost = {
            ref: [task for task, is_ in zip(tasks, found, strict=True) if is_ is not None and is_[:1] == b"l"]
            for found, (ref, tasks) in zip(states, running.items(), strict=True)
        }
        return {ref: tasks for ref, tasks in lost.items() if tasks}


def is_too_late(info: OperationInfo) -> bool:
    """Return whether a cancellation has no effect.

    A cancelled operation is reported again: workers may have missed it.

    Args:
        info: the operation.
    """
    return info.over and info.state != "cancelled"
