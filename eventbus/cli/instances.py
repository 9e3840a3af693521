"""``eventbus instances``: the gateways that run, and what each of them does.

Exit codes: 0 done, 1 there are none, 2 a mistake in a setting, 3 Redis is not available, or refuses.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from eventbus.backends.instances import InstanceLease
from eventbus.backends.redis.instance_registry import Instances
from eventbus.cli.client import age, call

__all__ = ["cli"]

cli = typer.Typer(add_completion=False)

_HEAD = ("NAME", "STATE", "UP", "CONNECTIONS", "USERS", "CPU", "MEMORY", "LAG", "VERSION", "HOST", "REASON")


@cli.callback(invoke_without_command=True)
def list_(*, as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False) -> None:
    """List the gateways that run, and those that were lost in the last EVENTBUS_INSTANCE_WINDOW seconds."""
    found = call(Instances, Instances.list)
    if not found:
        typer.echo("no gateway runs with this Redis and key prefix", err=True)
        raise typer.Exit(1)
    if as_json:
        for lease in found:
            typer.echo(json.dumps(facts(lease)))
        return
    rows = [_HEAD, *(_row(lease, time.time()) for lease in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(lease: InstanceLease) -> dict[str, object]:
    """Return what is known of an instance, for ``--json``.

    Args:
        lease: the instance.
    """
    return {**asdict(lease.record), "state": lease.state, "life": lease.life, "lease": round(lease.left, 3)}


def _row(lease: InstanceLease, now: float) -> tuple[str, ...]:
    record = lease.record
    return (
        record.name,
        lease.state,
        age(now - record.started / 1000),
        str(record.connections),
        str(record.users),
        f"{record.cpu:.0%}",
        f"{record.memory / 1_048_576:.0f} MB",
        f"{record.lag * 1000:.0f} ms",
        record.version,
        f"{record.host}:{record.pid}",
        record.reason,
    )
