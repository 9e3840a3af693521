"""Timelines of the data in Redis: what a restart or a failover kept. No I/O.

Redis' data always goes back to a prefix of its writes. So a process whose last write is still there knows that all
earlier writes are there too. Each start of a server and each promotion begins a *timeline*. Processes that wrote on the
one before state whether their last write is there. From their statements follows whether the new timeline continues
the old one (``clean``), lost a part of it (``forked``), or lost only what no worker counts as published (``kept``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from eventbus.protocol.cursor import Position

__all__ = ["UNKNOWN", "Evidence", "Statement", "Succession", "Timeline", "Verdict", "Voters", "judge", "succeed"]

Statement = Literal["intact", "gone", "unconfirmed", "unsure"]
Verdict = Literal["pending", "clean", "kept", "forked"]
Succession = Literal["same", "continue", "keep", "fork", "outdated"]


class Timeline(NamedTuple):
    """The timeline of the data, as a connection passes it to each script of a channel.

    Attributes:
        name: id of the server's life and a number that grows with each later fork, such as ``8f0c2a91d3.0``.
        ancestors: names of timelines that this one continues, with spaces between them; ``-`` stands for channels of a
            version without timelines. A tilde precedes those of which it lost only what no worker counts as published.
    """

    name: str
    ancestors: str


UNKNOWN: Final = Timeline("", "")
"""The server does not say which timeline it has. Scripts then compare nothing."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The last write that Redis acknowledged to a process, or that a process received.

    Attributes:
        entry: time of the renewal of the process' own entry, in ms; used if ``position`` is None.
        position: position of a channel after the write.
        fresh: whether the write is so young that its key cannot have expired.
    """

    entry: int = 0
    position: Position | None = None
    fresh: bool = True

    def state(self, entry: int | None, here: Position | None, parent: str = "", fork: int = 0) -> Statement:
        """Compare with what Redis has now.

        Args:
            entry: time of the process' entry; None: there is none.
            here: position of the channel; None: there is none.
            parent: the channel's epoch before its last fork.
            fork: offset of that fork.

        Returns:
            ``intact``: all earlier writes of all processes are there. ``gone``: some are not. ``unsure``: the key may
            have expired.
        """
        missing: Statement = "gone" if self.fresh else "unsure"
        if self.position is None:
            return "intact" if entry is not None and entry >= self.entry else missing
        if here is None:
            return missing
        epoch, offset = self.position
        if here.epoch == epoch:
            return "intact" if here.offset >= offset else "gone"
        return "intact" if parent == epoch and fork >= offset else missing


@dataclass(frozen=True, slots=True)
class Voters:
    """The statements when a verdict is due.

    Attributes:
        gone: whether a process has stated ``gone``.
        unconfirmed: whether a process has stated ``unconfirmed``.
        intact: whether a process of the timeline before has stated ``intact``.
        missing: number of processes that may have written last and have not stated ``intact``. A process that was idle
            or ended in order is not among them, nor one that renewed its entry long before the newest entry.
        registered: number of processes that the data names.
        append_only: whether the server writes an append-only file.
        waited: whether the patience is used up.
    """

    gone: bool
    unconfirmed: bool
    intact: bool
    missing: int
    registered: int
    append_only: bool
    waited: bool


def judge(known: Voters) -> Verdict:
    """Decide whether a timeline continues the one before. ``join.lua`` has the same rules.

    Args:
        known: the statements so far.

    Returns:
        The verdict.
    """
    if known.gone:
        return "forked"
    if known.unconfirmed:
        return "kept"
    all_ended = known.registered == 0 and known.append_only
    if known.missing == 0 and (known.intact or all_ended):
        return "clean"
    return "forked" if known.waited else "pending"


def succeed(channel: str | None, timeline: Timeline) -> Succession:
    """Decide what a script does with a channel. ``_timeline.lua`` has the same rules.

    Args:
        channel: timeline of the channel's last write; None: a version without timelines wrote it.
        timeline: the connection's.

    Returns:
        ``same`` and ``continue``: the epoch stays. ``fork`` and ``keep``: a new epoch begins, and offsets continue;
        with ``keep``, nothing before its first offset was lost. ``outdated``: the connection has to ask for the
        timeline again.
    """
    if not timeline.name or channel == timeline.name:
        return "same"
    ancestors = timeline.ancestors.split()
    kept: Succession = "keep" if f"~{channel or '-'}" in ancestors else "fork"
    if channel is not None:
        server, _, generation = channel.partition(".")
        own, _, number = timeline.name.partition(".")
        if server == own:
            return "outdated" if int(generation) > int(number) else kept
    return "continue" if (channel or "-") in ancestors else kept
