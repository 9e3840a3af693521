"""The audit log: who did what, when. Each action of an operator is an entry in Redis and a line of the log."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Final, Literal, Protocol

__all__ = ["IDS_MAX", "NAME_MAX", "AuditEntry", "AuditStore", "Via", "log_entry"]

log = logging.getLogger("eventbus.audit")

IDS_MAX: Final = 20
"""Ids that one entry names; ``count`` is their number."""

NAME_MAX: Final = 200
"""Characters of a name in an entry."""

Via = Literal["cli", "http", "python"]
"""How an action came: the command line, the HTTP API, or a call of the library."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action. It is written before the action is carried out.

    Attributes:
        action: what was done, such as ``dead_letters.requeue``.
        by: who did it: a user of the site, or of a shell.
        via: how the action came.
        target: the channel, user or token that it is about.
        count: number of things, such as events.
        ids: their ids, at most 20 of them.
        time: milliseconds since 1970, by Redis' clock; 0 before it is written.
    """

    action: str
    by: str
    via: Via
    target: str
    count: int = 1
    ids: tuple[str, ...] = ()
    time: int = 0

    def __post_init__(self) -> None:
        """Bound the texts: a token or a shell chose some of them."""
        for name in ("action", "by", "target"):
            object.__setattr__(self, name, getattr(self, name)[:NAME_MAX])
        object.__setattr__(self, "ids", tuple(id_[:NAME_MAX] for id_ in self.ids[:IDS_MAX]))

    @property
    def facts(self) -> dict[str, object]:
        """Its attributes by name, for JSON."""
        return asdict(self)


class AuditStore(Protocol):
    """Keeps entries, for an event loop."""

    async def record(self, entry: AuditEntry) -> None:
        """Write an entry, and a line of the log.

        Args:
            entry: the action that is about to be carried out.

        Raises:
            TransportError: it is not written, so the action must not be carried out.
        """


def log_entry(entry: AuditEntry) -> None:
    """Write a line of the log. ``audit`` in the record has the facts by name.

    Args:
        entry: the action.
    """
    facts = {name: value for name, value in entry.facts.items() if name != "time"}
    text = "audit: %s did %s via %s: %s, %d (%s)"
    ids = ", ".join(entry.ids)
    log.info(text, entry.by, entry.action, entry.via, entry.target, entry.count, ids, extra={"audit": facts})
