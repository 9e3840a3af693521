"""A server with the users of the roles, and no other that a program could use."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import redis

from eventbus.backends.redis.acl.roles import ROLES, acl_file
from eventbus.testing.redis_server import RedisServer, server_binary

__all__ = ["RoleServer"]


class RoleServer(RedisServer):
    """A server whose ACL file is that of ``eventbus acl``. A user of the tests may do everything.

    Args:
        folder: its working folder.
        prefix: the prefix of all keys.
        program: the server program; None: that of the tests.
    """

    def __init__(self, folder: Path, prefix: str = "eb", program: str | None = None) -> None:
        super().__init__(folder)
        self._program = program
        self._file = folder / "users.acl"
        lines = re.sub(r"\$\{(\w+)_PASSWORD\}", lambda found: f"password-of-{found[1]}", acl_file(prefix=prefix))
        self._file.write_text(f"{lines}user tests on >tests ~* &* +@all\n")

    @property
    def client(self) -> redis.Redis:
        """A new client that may do everything."""
        return redis.Redis(port=self.port, username="tests", password="tests", socket_timeout=5)

    def command(self) -> list[str]:
        """Return the command line."""
        program = self._program or server_binary()
        return [shutil.which(program) or program, *super().command()[1:], "--aclfile", str(self._file)]

    def url_of(self, role: str, database: int = 0) -> str:
        """Return the address for a role's user.

        Args:
            role: the role.
            database: number of the database.
        """
        user = next(one.user for one in ROLES if one.name == role)
        password = f"password-of-REDIS_{role.upper()}"
        return f"redis://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def client_of(self, role: str) -> redis.Redis:
        """Return a client of a role's user."""
        return redis.Redis.from_url(self.url_of(role), socket_timeout=5)

    def denied(self) -> list[str]:
        """Return what the server has refused: user, reason and object.

        redis-py offers its name to each server, and does not need to.
        """
        with self.client as client:
            entries = [entry for entry in client.acl_log(128) if entry["object"] not in {"client", "client|setinfo"}]
        return [f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in entries]
