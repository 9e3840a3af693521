"""``eventbus sessions`` and ``eventbus tokens``: end the sessions of a user, refuse tokens.

Exit codes: 0 done, 1 nothing is revoked, 2 a mistake in the call, 3 Redis does not carry it out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, TypeVar

import typer

from eventbus.backends.redis.access.sessions import Sessions
from eventbus.backends.revocations import Revocation
from eventbus.cli.client import By, Json, call, fail, operator

__all__ = ["sessions", "tokens"]

sessions = typer.Typer(add_completion=False, no_args_is_help=True, help="Open sessions of users.")
tokens = typer.Typer(add_completion=False, no_args_is_help=True, help="Tokens that gateways refuse.")

T = TypeVar("T")

Reason = Annotated[str, typer.Option(help="why; the pages of the user receive it")]


@sessions.callback()
def _sessions() -> None:
    """Open sessions of users."""


@sessions.command()
def end(*, user: Annotated[str, typer.Option(help="the user's id")], reason: Reason = "", by: By = None) -> None:
    """End the sessions of a user at all gateways. The user's tokens stay valid."""
    _call(lambda client: client.end(user, reason, by=by or operator()))
    typer.echo(f"ended the sessions of {user}; to refuse the user's tokens too: eventbus tokens revoke --user {user}")


@tokens.command()
def revoke(
    *,
    user: Annotated[str | None, typer.Option(help="refuse this user's tokens")] = None,
    issued_before: Annotated[
        str | None, typer.Option(help="those issued before: 2026-12-01T09:30:00+01:00; default: now")
    ] = None,
    jti: Annotated[str | None, typer.Option(help="refuse the token with this claim jti")] = None,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Refuse tokens at all gateways, and end the sessions that they opened."""
    who = by or operator()
    if user is not None and jti is None:
        moment = None if issued_before is None else _moment(issued_before)
        revocation = _call(lambda client: client.revoke_tokens(user, moment, reason, by=who))
    elif jti is not None and user is None and issued_before is None:
        revocation = _call(lambda client: client.revoke_token(jti, reason, by=who))
    else:
        fail("name either --user, with --issued-before if you like, or --jti", 2)
    typer.echo(_line(revocation))


@tokens.command("list")
def list_(*, as_json: Json = False) -> None:
    """List what is ended and refused, the oldest first."""
    found = _call(lambda client: client.revocations())
    for revocation in found:
        typer.echo(json.dumps(asdict(revocation)) if as_json else _line(revocation))
    if not found:
        raise typer.Exit(1)


def _line(revocation: Revocation) -> str:
    match revocation.kind:
        case "sessions":
            what = f"sessions of {revocation.subject} ended"
        case "user":
            what = f"tokens of {revocation.subject} issued before {_time(revocation.issued_before)}"
        case "token":
            what = f"token {revocation.subject}"
    reason = f": {revocation.reason}" if revocation.reason else ""
    return f"{_time(revocation.at / 1000)}  {what}, until {_time(revocation.until / 1000)}, by {revocation.by}{reason}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _moment(text: str) -> float:
    """Read a moment. One without a zone is local time."""
    try:
        moment = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        moment = math.nan
    if not moment > 0:
        fail(f"--issued-before must read 2026-12-01T09:30:00+01:00, not {text!r}", 2)
    return moment


def _call(request: Callable[[Sessions], T]) -> T:
    return call(partial(Sessions, via="cli"), request)
