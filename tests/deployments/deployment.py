"""Kinds of Redis for production. Each program has the user of its role, with no more rights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from eventbus.backends.redis.acl.roles import ROLES, Role
from tests.conftest import RedisServer
from tests.servers.cluster import RedisCluster, running_cluster
from tests.servers.sentinel import SentinelSystem, running_sentinels
from tests.servers.tls import ServerTls

__all__ = ["KINDS", "Deployment", "running_deployment"]

KINDS = ("cluster", "cluster with TLS", "sentinel", "sentinel with TLS")
_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "redis-url.md"


@dataclass
class Deployment:
    """A system that runs.

    Attributes:
        kind: one of ``KINDS``.
        address: its address, with certificates and the user of the sentinels.
        system: its processes.
    """

    kind: str
    address: str
    system: RedisCluster | SentinelSystem

    def url(self, role: Role) -> str:
        """Return the address for the user of a role.

        Args:
            role: the role.
        """
        return self.address.replace("://", f"://{role.user}:secret@")

    def clients(self) -> Iterator[redis.Redis]:
        """Yield an administrator's client of each master."""
        masters = self.system.masters if isinstance(self.system, RedisCluster) else [self.system.master]
        for master in masters:
            with master.client as client:
                yield client

    def make_users(self) -> None:
        """Make the users at each running server. A server that was killed has forgotten them."""
        cluster = isinstance(self.system, RedisCluster)
        servers: Sequence[RedisServer] = (
            self.system.nodes if isinstance(self.system, RedisCluster) else self.system.servers
        )
        for server in servers:
            if server.process is not None:
                with server.client as client:
                    for role in ROLES:
                        rules = role.rules(cluster=cluster)
                        client.execute_command("ACL", "SETUSER", role.user, "on", ">secret", *rules)

    def keys_without_ttl(self) -> list[bytes]:
        """Return the keys that would live forever."""
        found: list[bytes] = []
        for client in self.clients():
            found += [key for key in client.scan_iter(count=1000) if client.ttl(key) == -1]
        return found


def sentinel_user() -> str:
    """Return the line of the configuration that makes the sentinels' user, as the documentation has it."""
    found = re.search(r"^ *ACL SETUSER (watcher .*?)```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{_PAGE} has no user of the sentinels"
    return " ".join(["user", *found[1].split()])


@contextmanager
def running_deployment(kind: str, folder: Path) -> Iterator[Deployment]:
    """Run a system.

    Args:
        kind: one of ``KINDS``.
        folder: its working folder.
    """
    tls = ServerTls(folder) if "TLS" in kind else None
    servers = folder / "servers"
    servers.mkdir()
    if kind.startswith("cluster"):
        with running_cluster(servers, tls=tls) as cluster:
            deployment = Deployment(kind, cluster.url, cluster)
            deployment.make_users()
            yield deployment
        return
    with running_sentinels(servers, sentinel_lines=[sentinel_user()], tls=tls) as sentinels:
        credentials = "sentinel_username=watcher&sentinel_password=secret"
        separator = "&" if "?" in sentinels.url else "?"
        deployment = Deployment(kind, f"{sentinels.url}{separator}{credentials}", sentinels)
        deployment.make_users()
        yield deployment
