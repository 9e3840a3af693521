"""Requests about operations, from pages and scripts: access, the answer, and the number of requests at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from eventbus.backends.audit import AuditEntry, AuditStore, log_entry
from eventbus.errors import InvalidName, TransportError
from eventbus.operations.events import OperationRef
from eventbus.operations.state import OperationState
from eventbus.operations.store import OperationInfo, OperationStore
from webui_adapter.access.principal import Principal
from webui_adapter.context import GatewayContext
from webui_adapter.errors import CommandRefused
from webui_adapter.maintenance.broker_control import BrokerControl
from webui_adapter.protocol.commands import Cancel, ListOperations, ShowOperation
from webui_adapter.session.session import Session

__all__ = ["Facts", "OperationCommand", "OperationService"]

T = TypeVar("T")
Facts = dict[str, object]
OperationCommand = ListOperations | ShowOperation | Cancel

# Calls to Redis at the same time. More would take the connections that read histories.
_CONCURRENT = 8
_WAITING = 500
# Seconds that a request may wait for one of these calls.
_SLOT_TIMEOUT = 5.0
_RETRY_MS = 2_000


class OperationService:
    """Answers requests about operations. Each answer is the data of one ``bus.ok``.

    Args:
        context: the shared context.
        store: the operations.
        broker_control: sends cancellations to workers over Celery's broker; None: workers poll Redis.
        audit: keeps what admins do to operations of others; None: only the log of the process has it.
    """

    def __init__(
        self,
        context: GatewayContext,
        store: OperationStore,
        broker_control: BrokerControl | None = None,
        audit: AuditStore | None = None,
    ) -> None:
        self._counters = context.counters
        self._read_only = context.read_only
        self._spawn = context.spawn
        self._flush = context.flush
        self._store = store
        self._admin_scope = context.settings.admin_scope
        self._broker_control = broker_control
        self._audit = audit
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._waiting = 0

    def handle(self, session: Session, command: OperationCommand) -> None:
        """Begin to carry out a session's command. The answer follows.

        Args:
            session: the session.
            command: the command.
        """
        self._spawn(self._handle(session, command))

    async def _handle(self, session: Session, command: OperationCommand) -> None:
        assert session.principal is not None
        try:
            facts = await self.execute(session.principal, command)
        except CommandRefused as error:
            error.ref = command.ref
            session.refuse(error)
        else:
            session.answer(command.ref, **facts)
        self._flush()

    async def execute(self, principal: Principal, command: OperationCommand) -> Facts:
        """Carry out a command.

        Args:
            principal: the user who asks.
            command: the command.

        Returns:
            The data of the answer.

        Raises:
            CommandRefused: ``forbidden``, ``bad_command``, ``unknown_operation``, ``read_only`` or ``unavailable``.
        """
        user = self._target_user(principal, command.user)
        match command:
            case ListOperations():
                return await self._list(user, command.limit, command.states)
            case ShowOperation():
                self._counters["operation_request.show"] += 1
                return _one(command.operation, await self._call(lambda: self._store.get(user, command.operation)))
            case Cancel():
                return await self._cancel(principal, user, command.operation)

    def _target_user(self, principal: Principal, user: str | None) -> str:
        if user is None or user == principal.user:
            return principal.user
        if self._admin_scope not in principal.scopes:
            raise CommandRefused("forbidden", "only admins may use the operations of other users", field="user")
        return user

    async def _list(self, user: str, limit: int, states: Sequence[OperationState]) -> Facts:
        self._counters["operation_request.list"] += 1
        found = await self._call(lambda: self._store.of(user, limit, states))
        return {"operations": [_facts(info) for info in found]}

    async def _cancel(self, principal: Principal, user: str, op: str) -> Facts:
        self._counters["operation_request.cancel"] += 1
        reason = self._read_only()
        if reason is not None:
            raise _not_now("read_only", f"cannot cancel now: {reason}")
        if principal.user != user:
            entry = AuditEntry("operations.cancel", principal.user, "http", f"user:{user}", ids=(op,))
            await self._call(lambda: self._record(entry), "read_only")
        info = await self._call(lambda: self._store.cancel(user, op), "read_only")
        facts = _one(op, info)
        if info is not None and info.cancelled:
            # Otherwise it had ended before.
            self._counters["cancelled"] += 1
            if self._broker_control is not None:
                self._broker_control.revoke(OperationRef(user, op))
        return facts

    async def _record(self, entry: AuditEntry) -> None:
        if self._audit is None:
            log_entry(entry)
        else:
            await self._audit.record(entry)

    async def _call(self, call: Callable[[], Awaitable[T]], code: str = "unavailable") -> T:
        await self._acquire_slot(code)
        try:
            return await call()
        except TransportError as error:
            raise _not_now(code, f"cannot read operations from Redis: {error}") from error
        except InvalidName as error:
            field = "user" if error.field == "user" else "operation"
            raise CommandRefused("bad_command", str(error), field=field) from None
        finally:
            self._slots.release()

    async def _acquire_slot(self, code: str) -> None:
        if self._waiting >= _WAITING:
            raise _not_now(code, "too many requests about operations; try again")
        self._waiting += 1
        try:
            async with asyncio.timeout(_SLOT_TIMEOUT):
                await self._slots.acquire()
        except TimeoutError:
            raise _not_now(code, "too many requests about operations; try again") from None
        finally:
            self._waiting -= 1


def _not_now(code: str, message: str) -> CommandRefused:
    return CommandRefused(code, message, retry_ms=_RETRY_MS)


def _one(op: str, info: OperationInfo | None) -> Facts:
    if info is None:
        raise CommandRefused("unknown_operation", f"there is no operation {op}, or it has expired", field="operation")
    tasks = [{"task": task.task, "name": task.name, "retries": task.retries, "lost": task.lost} for task in info.tasks]
    return {"operation": {**_facts(info), "tasks": tasks}}


def _facts(info: OperationInfo) -> Facts:
    return {
        "user": info.user,
        "id": info.id,
        "label": info.label,
        "state": info.state,
        "done": info.done,
        "failed": info.failed,
        "total": info.total,
        "queued": info.queued,
        "started": info.started,
        "heard": info.heard,
        "ended": info.ended,
        "cancelled": info.cancelled,
    }
