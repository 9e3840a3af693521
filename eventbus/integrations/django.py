"""``emit_on_commit`` for Django's transactions. The only module that needs Django."""

from __future__ import annotations

from typing import overload

from django.db import transaction

from eventbus.deferred import defer
from eventbus.errors import TooManyDeferred
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.process_bus import default_bus
from eventbus.protocol.ids import event_id
from eventbus.protocol.topics import UserId

__all__ = ["emit_on_commit"]


@overload
def emit_on_commit(payload: Event, /, *, id: str | None = None, using: str | None = None) -> Receipt: ...
@overload
def emit_on_commit(
    user: UserId, op: str, payload: Event, /, *, id: str | None = None, using: str | None = None
) -> Receipt: ...
def emit_on_commit(*args: object, id: str | None = None, using: str | None = None) -> Receipt:
    """``emit`` after the commit of the current transaction; immediately outside a transaction.

    The event is checked now. The rules of ``transaction.on_commit`` apply: events go in order after the outermost
    commit, and never if the transaction, or a savepoint around this call, is rolled back. Django does not report a
    rollback: then the receipt stays ``waiting``, and nothing is counted.

    Args:
        *args: as ``emit``.
        id: event id that makes the call idempotent; default: a new id.
        using: alias of the database.

    Returns:
        The receipt.

    Raises:
        InvalidEmission: as ``emit``.
        NoOperation: as ``emit``.
        TooManyDeferred: ``commit_events`` functions wait for this commit already.
        django.db.transaction.TransactionManagementError: autocommit is off and there is no ``atomic`` block.
    """
    deferred = defer(args, event_id() if id is None else id)
    limit = default_bus().settings.commit_events
    if len(transaction.get_connection(using).run_on_commit) >= limit:
        raise TooManyDeferred(
            f"{limit} functions wait for this transaction's commit; emit fewer, or commit more often, or raise "
            "EVENTBUS_COMMIT_EVENTS",
            limit=limit,
        )
    # Robust: an event that was changed since must not keep Django from calling the other functions.
    transaction.on_commit(deferred.send, using=using, robust=True)
    return deferred.receipt
