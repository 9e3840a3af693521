"""``emit_on_commit`` for SQLAlchemy's sessions. The only module that needs SQLAlchemy 2."""

from __future__ import annotations

import logging
from functools import cache
from typing import Final, overload

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from eventbus.deferred import DeferredEvent, defer
from eventbus.errors import TooManyDeferred
from eventbus.events.event import Event
from eventbus.events.receipt import Receipt
from eventbus.process_bus import default_bus
from eventbus.protocol.ids import event_id
from eventbus.protocol.topics import UserId

__all__ = ["AnySession", "emit_on_commit"]

log = logging.getLogger(__name__)

AnySession = Session | scoped_session[Session] | AsyncSession

_PLACE: Final = "eventbus_on_commit"  # in session.info
_REASON: Final = "rolled_back"

# Waiting events of a session, each with the innermost transaction that it depends on.
_Waiting = list[tuple[SessionTransaction, DeferredEvent]]


@overload
def emit_on_commit(session: AnySession, payload: Event, /, *, id: str | None = None) -> Receipt: ...
@overload
def emit_on_commit(
    session: AnySession, user: UserId, op: str, payload: Event, /, *, id: str | None = None
) -> Receipt: ...
def emit_on_commit(session: AnySession, /, *args: object, id: str | None = None) -> Receipt:
    """``emit`` after the commit of the session's transaction; immediately if none has begun.

    The event is checked now. Events go in order after the outermost commit. An event is dropped and counted
    (``rolled_back``) if the transaction, or a savepoint around this call, is rolled back, or the session is closed
    without a commit. A session begins a transaction with its first work: ``add``, ``execute``, ``begin``.

    Args:
        session: a session, a scoped session or an async session.
        *args: as ``emit``.
        id: event id that makes the call idempotent; default: a new id.

    Returns:
        The receipt.

    Raises:
        InvalidEmission: as ``emit``.
        NoOperation: as ``emit``.
        TooManyDeferred: ``commit_events`` events wait for this commit already.
    """
    plain = _plain(session)
    deferred = defer(args, event_id() if id is None else id)
    transaction = plain.get_nested_transaction() or plain.get_transaction()
    if transaction is None:
        return deferred.send()
    _listen()
    waiting: _Waiting = plain.info.setdefault(_PLACE, [])
    limit = default_bus().settings.commit_events
    if len(waiting) >= limit:
        raise TooManyDeferred(
            f"{limit} events wait for this session's commit; emit fewer, or commit more often, or raise "
            "EVENTBUS_COMMIT_EVENTS",
            limit=limit,
        )
    waiting.append((transaction, deferred))
    return deferred.receipt


def _plain(session: AnySession) -> Session:
    if isinstance(session, AsyncSession):
        return session.sync_session
    if isinstance(session, scoped_session):
        return session()
    return session


@cache
def _listen() -> None:
    """Listen to all sessions, from the first use on. A listener for each session would slow down every session."""
    event.listen(Session, "after_commit", _committed)
    event.listen(Session, "after_soft_rollback", _rolled_back)
    event.listen(Session, "after_transaction_end", _ended)


def _committed(session: Session) -> None:
    if session.in_nested_transaction():
        return  # a savepoint was released: the outer transaction is still open
    for _, deferred in session.info.pop(_PLACE, ()):
        try:
            deferred.send()
        except Exception:
            # It was valid before, and the application has changed its content since. The others go on.
            log.exception("cannot build an event that waited for a commit")
            deferred.drop("changed")


def _rolled_back(session: Session, transaction: SessionTransaction) -> None:
    waiting: _Waiting = session.info.get(_PLACE, [])
    for depends, deferred in waiting:
        if _within(depends, transaction):
            deferred.drop(_REASON)
    waiting[:] = [entry for entry in waiting if not _within(entry[0], transaction)]


def _within(inner: SessionTransaction | None, outer: SessionTransaction) -> bool:
    """Whether one is the other, or a savepoint anywhere in it, released ones too."""
    while inner is not None and inner is not outer:
        inner = inner.parent
    return inner is not None


def _ended(session: Session, transaction: SessionTransaction) -> None:
    """Drop the events that the end of the outermost transaction finds here: they were not committed."""
    if transaction.parent is None:
        for _, deferred in session.info.pop(_PLACE, ()):
            deferred.drop(_REASON)
