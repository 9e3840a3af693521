"""What happened to one operation, in order: for whoever has to find out why a run of the soak failed."""

from __future__ import annotations

from collections.abc import Iterable

from tests.soak.ledger import Kill, Run

__all__ = ["story_of"]


def story_of(runs: Iterable[Run], kills: Iterable[Kill], said: Iterable[tuple[float, str, str]]) -> str:
    """``runs`` of the operation, its events as ``Ears.said`` has them, and the kills of processes that ran it."""
    runs = list(runs)
    pids = {run.pid for run in runs}
    lines = [(at, f"said {type_} {data}") for at, type_, data in said]
    for run in runs:
        name = f"{run.task[:8]} {run.leaf} try {run.attempt} {'late' if run.late else 'early'} in {run.pid}"
        lines.append((run.began, f"ran {name}, published by {run.parent[:8] or 'the site'}"))
        if run.outcome:
            lines.append((run.ended, f"wrote {run.outcome}: {name}"))
    lines += [(kill.at, f"KILLED {kill.pid}") for kill in kills if kill.pid in pids]
    return "\n".join(f"{at:.3f} {line}" for at, line in sorted(lines))
