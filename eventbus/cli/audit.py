"""``eventbus audit``: who did what, the newest first.

Exit codes: 0 done, 1 nothing matches, 2 a mistake in the call, 3 Redis is not available, or refuses.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from eventbus.backends.audit import AuditEntry
from eventbus.backends.redis.audit.audit_log import AuditLog
from eventbus.cli.client import call, seconds_of

__all__ = ["cli"]

cli = typer.Typer(add_completion=False)


@cli.callback(invoke_without_command=True)
def list_(
    *,
    by: Annotated[str | None, typer.Option(help="only the actions of this person")] = None,
    action: Annotated[str | None, typer.Option(help="only this action, such as dead_letters.purge or sessions")] = None,
    since: Annotated[str | None, typer.Option(help="how far back: 10m, 2h, 7d")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """List what operators did to dead letters, operations, sessions and tokens, the newest first."""
    age = seconds_of(since, "--since")
    since_ms = 0 if age is None else int((time.time() - age) * 1000)
    found = call(AuditLog, lambda log: log.entries(by=by, action=action, since_ms=since_ms, limit=limit))
    for entry in found:
        typer.echo(json.dumps(entry.facts) if as_json else _line(entry))
    if not found:
        raise typer.Exit(1)


def _line(entry: AuditEntry) -> str:
    when = datetime.fromtimestamp(entry.time / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"{when}  {entry.by:<16}  {entry.via:<6}  {entry.action:<22}  {entry.count:>5}  {entry.target}"
