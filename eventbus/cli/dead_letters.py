"""``eventbus dead-letters``: events that could not be delivered, and what an operator does about them.

Exit codes: 0 done, 1 nothing matches, 2 a mistake in the call, 3 Redis does not carry it out.
"""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from eventbus.backends.dead_letters import DeadLetter
from eventbus.backends.redis.dead_letter_client import DeadLetterFilter, DeadLetters
from eventbus.cli.client import By, Json, age, call, fail, operator, seconds_of

__all__ = ["cli"]

cli = typer.Typer(add_completion=False, no_args_is_help=True, help="Events that could not be delivered.")


Ids = Annotated[list[str] | None, typer.Argument(help="event ids; default: all that match the options")]
User = Annotated[str | None, typer.Option(help="a user's id, or a channel such as collection:7")]
Reason = Annotated[str | None, typer.Option(help="expired, attempts, full, undecodable, too_large, …")]
Type = Annotated[str | None, typer.Option("--type", help="event type")]
Older = Annotated[str | None, typer.Option(help="older than: 30s, 10m, 2h, 7d")]
Younger = Annotated[str | None, typer.Option(help="younger than: 30s, 10m, 2h, 7d")]
All = Annotated[bool, typer.Option("--all", help="all dead letters; required without ids and options")]


@cli.command("list")
def list_(
    *,
    user: User = None,
    reason: Reason = None,
    type_: Type = None,
    older_than: Older = None,
    younger_than: Younger = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: Json = False,
) -> None:
    """List matching dead letters, by channel, oldest first."""
    chosen = _chosen(None, user, reason, type_, older_than, younger_than)
    found = call(DeadLetters, lambda dead: dead.find(chosen, limit=limit))
    for dead_letter in found:
        typer.echo(json.dumps(facts(dead_letter)) if as_json else _line(dead_letter))
    if not found:
        raise typer.Exit(1)


@cli.command()
def show(channel: str, id_: Annotated[str, typer.Argument(metavar="ID")], *, as_json: Json = False) -> None:
    """Show one dead letter with its content. CHANNEL may be a user's id."""
    dead_letter = call(DeadLetters, lambda dead: dead.show(channel, id_))
    if as_json:
        typer.echo(json.dumps({**facts(dead_letter), "content": dead_letter.readable}))
        return
    for name, value in {**facts(dead_letter), "content": dead_letter.readable}.items():
        typer.echo(f"{name:>9}  {value}")


@cli.command()
def count(
    *,
    user: User = None,
    reason: Reason = None,
    type_: Type = None,
    older_than: Older = None,
    younger_than: Younger = None,
    as_json: Json = False,
) -> None:
    """Count matching dead letters by reason."""
    chosen = _chosen(None, user, reason, type_, older_than, younger_than)
    counts = call(DeadLetters, lambda dead: dead.count(chosen))
    if as_json:
        typer.echo(json.dumps(counts))
        return
    for name, number in counts.most_common():
        typer.echo(f"{number:>7}  {name}")


@cli.command()
def requeue(
    ids: Ids = None,
    *,
    user: User = None,
    reason: Reason = None,
    type_: Type = None,
    older_than: Older = None,
    younger_than: Younger = None,
    everything: All = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    by: By = None,
) -> None:
    """Send matching dead letters again, EVENTBUS_REQUEUE_RATE a second. Requeued ones are skipped."""
    chosen = _narrowed(_chosen(ids, user, reason, type_, older_than, younger_than), everything=everything)
    done = call(DeadLetters, lambda dead: dead.requeue(chosen, by=by or operator(), via="cli", limit=limit, wait=True))
    typer.echo(f"requeued {done.requeued}" + (f", {done.unreadable} cannot be sent" if done.unreadable else ""))
    if not done.requeued:
        raise typer.Exit(1)


@cli.command()
def purge(
    ids: Ids = None,
    *,
    user: User = None,
    reason: Reason = None,
    type_: Type = None,
    older_than: Older = None,
    younger_than: Younger = None,
    everything: All = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 1000,
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Remove matching dead letters permanently."""
    chosen = _narrowed(_chosen(ids, user, reason, type_, older_than, younger_than), everything=everything)
    found = len(call(DeadLetters, lambda dead: dead.find(chosen, limit=limit)))
    if found and not yes:
        typer.confirm(f"remove {found} dead letters permanently?", abort=True)
    gone = call(DeadLetters, lambda dead: dead.purge(chosen, by=by or operator(), via="cli", limit=limit))
    typer.echo(f"purged {gone}")
    if not gone:
        raise typer.Exit(1)


def facts(dead_letter: DeadLetter) -> dict[str, object]:
    """Return the facts of a dead letter, without its content.

    Args:
        dead_letter: as read from Redis.
    """
    return {
        "channel": dead_letter.channel,
        "id": dead_letter.id,
        "reason": dead_letter.reason,
        "type": dead_letter.type,
        "attempts": dead_letter.attempts,
        "first": dead_letter.first,
        "died": dead_letter.died,
        "requeues": dead_letter.requeues,
    }


def _line(dead: DeadLetter) -> str:
    since = age(time.time() - dead.died / 1000)
    return f"{since:>5}  {dead.reason:<12}  {dead.type or '?':<24}  {dead.channel:<20}  {dead.id}"


def _chosen(
    ids: list[str] | None,
    user: str | None,
    reason: str | None,
    type_: str | None,
    older: str | None,
    younger: str | None,
) -> DeadLetterFilter:
    return DeadLetterFilter(
        ids=frozenset(ids) if ids else None,
        channel=user,
        reason=reason,
        type=type_,
        older_than=seconds_of(older, "--older-than"),
        younger_than=seconds_of(younger, "--younger-than"),
    )


def _narrowed(chosen: DeadLetterFilter, *, everything: bool) -> DeadLetterFilter:
    if chosen.everything and not everything:
        fail("name ids or at least one option, or use --all", 2)
    return chosen
