"""``eventbus acl``: the users of Redis that the programs need, as an ACL file."""

from __future__ import annotations

from typing import Annotated

import typer

from eventbus.backends.redis.acl.roles import ROLES, acl_file

__all__ = ["acl"]

_NAMES = [role.name for role in ROLES]


def _known(names: list[str] | None) -> list[str]:
    for name in names or []:
        if name not in _NAMES:
            raise typer.BadParameter(f"{name} is no role; choose from {', '.join(_NAMES)}")
    return names or _NAMES


def acl(
    roles: Annotated[list[str] | None, typer.Argument(help="roles; default: all", callback=_known)] = None,
    *,
    prefix: Annotated[str, typer.Option(help="the prefix of all keys (EVENTBUS_KEY_PREFIX)")] = "eb",
    broker_database: Annotated[int, typer.Option(min=0, help="the database that is Celery's broker")] = 1,
    broker_prefix: Annotated[str, typer.Option(help="Celery's global_keyprefix")] = "",
    cluster: Annotated[bool, typer.Option("--cluster", help="for the nodes of a Redis Cluster")] = False,
) -> None:
    """Print an ACL file with a user for each role. ${REDIS_…_PASSWORD} is the place of its password.

    Args:
        roles: names of the roles.
        prefix: the prefix of all keys.
        broker_database: number of the database that is Celery's broker.
        broker_prefix: Celery's ``global_keyprefix``.
        cluster: whether the server is a node of a cluster.
    """
    chosen = [role for role in ROLES if role.name in (roles or _NAMES)]
    text = acl_file(chosen, prefix, broker=broker_database, broker_prefix=broker_prefix, cluster=cluster)
    typer.echo(text, nl=False)
