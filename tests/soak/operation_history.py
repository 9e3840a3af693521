"""The history of one operation, in order, for the message of a soak that failed."""

from __future__ import annotations

from collections.abc import Iterable

from tests.soak.ledger import Kill, Run

__all__ = ["history_of"]


def history_of(runs: Iterable[Run], kills: Iterable[Kill], events: Iterable[tuple[float, str, str]]) -> str:
    """``runs`` of the operation, its events from ``ChannelListener.events_of``, and the kills of its processes."""
    runs = list(runs)
    pids = {run.pid for run in runs}
    lines = [(at, f"event {type_} {data}") for at, type_, data in events]
    for run in runs:
        name = f"{run.task[:8]} {run.task_key} try {run.attempt} {'late' if run.late else 'early'} in {run.pid}"
        lines.append((run.began, f"ran {name}, published by {run.parent[:8] or 'the site'}"))
        if run.outcome:
            lines.append((run.ended, f"wrote {run.outcome}: {name}"))
    lines += [(kill.at, f"KILLED {kill.pid}") for kill in kills if kill.pid in pids]
    return "\n".join(f"{at:.3f} {line}" for at, line in sorted(lines))
