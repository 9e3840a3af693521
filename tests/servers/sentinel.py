"""A master with two replicas, watched by three sentinels: real processes, up in a few seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from eventbus.testing.redis_server import RedisServer, free_port, server_binary
from tests.conftest import wait_until
from tests.servers.tls import ServerTls

__all__ = ["MonitoredServer", "Sentinel", "SentinelSystem", "running_sentinels"]

DOWN_AFTER_MS: Final = 1_000


class MonitoredServer(RedisServer):
    """A master or a replica.

    Args:
        folder: its working folder.
        master: port of its master; None: it begins as the master.
        options: more options.
        tls: TLS, also between the servers.

    Attributes:
        tls_port: where it listens for TLS; 0: nowhere.
    """

    def __init__(self, folder: Path, master: int | None = None, *options: str, tls: ServerTls | None = None) -> None:
        super().__init__(folder)
        self._tls = tls
        self.tls_port = 0 if tls is None else free_port()
        self._master = master
        self._options = options

    def command(self) -> list[str]:
        """Return the command line."""
        following = () if self._master is None else ("--replicaof", "127.0.0.1", str(self._master))
        command = [*super().command(), "--repl-diskless-sync-delay", "0", *following, *self._options]
        return command if self._tls is None else [self._tls.program, *command[1:], *self._tls.options(self.tls_port)]

    @property
    def monitored_port(self) -> int:
        """The port that sentinels and clients know."""
        return self.tls_port or self.port

    def start(self, seconds: float = 15.0) -> None:
        """Start it. A master that was killed begins as a master again, until a sentinel finds it."""
        super().start(seconds)
        self._fixed = True  # the others know its port

    @property
    def role(self) -> str:
        """``master`` or ``slave``, as the server says."""
        with self.client as client:
            return str(client.execute_command("ROLE")[0].decode())


class Sentinel(RedisServer):
    """A sentinel.

    Args:
        folder: its working folder; it keeps what it knows there.
        name: the master's name.
        master: the master's port.
        lines: more lines of its configuration, such as users.
        tls: TLS, also to the servers and to other sentinels.

    Attributes:
        tls_port: where it listens for TLS; 0: nowhere.
    """

    def __init__(
        self, folder: Path, name: str, master: int, lines: Sequence[str] = (), tls: ServerTls | None = None
    ) -> None:
        super().__init__(folder)
        self._lines = lines
        self._tls = tls
        self.tls_port = 0 if tls is None else free_port()
        self._config = folder / "sentinel.conf"
        self._name = name
        self._master = master

    def command(self) -> list[str]:
        """Return the command line. The first start writes the configuration."""
        if not self._config.exists() or not self._fixed:
            lines = [
                f"port {self.port}",
                "bind 127.0.0.1",
                f"sentinel monitor {self._name} 127.0.0.1 {self._master} 2",
                f"sentinel down-after-milliseconds {self._name} {DOWN_AFTER_MS}",
                f"sentinel failover-timeout {self._name} 10000",
                f"sentinel parallel-syncs {self._name} 2",
                *self._lines,
            ]
            if self._tls is not None:
                lines[:0] = [f"tls-port {self.tls_port}", *(" ".join(one) for one in self._tls.files().items())]
            self._config.write_text("\n".join(lines) + "\n")
        return [server_binary() if self._tls is None else self._tls.program, str(self._config), "--sentinel"]

    def start(self, seconds: float = 15.0) -> None:
        """Start it."""
        super().start(seconds)
        self._fixed = True  # the others know its port

    def ask(self, *command: str | int) -> Any:
        """Run ``SENTINEL …``. The reply is as Redis sent it."""
        with redis.Redis(port=self.port, socket_timeout=5, protocol=2) as client:
            client.response_callbacks.clear()
            return client.execute_command("SENTINEL", *command)


class SentinelSystem:
    """One master, two replicas and three sentinels.

    Args:
        folder: working folder of all.
        options: more options of the master and the replicas.
        name: the master's name.
        sentinel_lines: more lines of the sentinels' configuration.
        tls: TLS for all connections.

    Attributes:
        servers: master and replicas; the first one begins as the master.
        sentinels: the sentinels.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        name: str = "mymaster",
        sentinel_lines: Sequence[str] = (),
        tls: ServerTls | None = None,
    ) -> None:
        self._sentinel_lines = sentinel_lines
        self._tls = tls
        self._folder = folder
        self._options = options
        self.name = name
        self.servers: list[MonitoredServer] = []
        self.sentinels: list[Sentinel] = []

    def start(self) -> None:
        """Start all, and wait until each sentinel knows the others and both replicas."""
        for n in range(3):
            master = self.servers[0].monitored_port if self.servers else None
            server = MonitoredServer(self._new_folder(f"server{n}"), master, *self._options, tls=self._tls)
            server.start()
            self.servers.append(server)
        wait_until(lambda: self.servers[0].client.info("replication")["connected_slaves"] == 2, "the replicas")
        for n in range(3):
            folder, master = self._new_folder(f"sentinel{n}"), self.servers[0].monitored_port
            sentinel = Sentinel(folder, self.name, master, self._sentinel_lines, self._tls)
            sentinel.start()
            self.sentinels.append(sentinel)
        self.wait_ready()

    def wait_ready(self, seconds: float = 30.0) -> None:
        """Wait until each running sentinel knows the others and both replicas, and nothing is down."""
        wait_until(self._ready, "the sentinels", seconds)

    @property
    def master(self) -> MonitoredServer:
        """The master that the sentinels name."""
        sentinel = next(one for one in self.sentinels if one.process is not None)
        port = int(sentinel.ask("GET-MASTER-ADDR-BY-NAME", self.name)[1])
        return next(server for server in self.servers if server.monitored_port == port)

    @property
    def replicas(self) -> list[MonitoredServer]:
        """The other servers, also those that were killed."""
        master = self.master
        return [server for server in self.servers if server is not master]

    @property
    def url(self) -> str:
        """Its address, database 0."""
        if self._tls is None:
            nodes = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
            return f"redis+sentinel://{nodes}/{self.name}/0"
        nodes = ",".join(f"127.0.0.1:{sentinel.tls_port}" for sentinel in self.sentinels)
        return f"rediss+sentinel://{nodes}/{self.name}/0?{self._tls.query}"

    def fail_over(self, *, coordinated: bool = False) -> MonitoredServer:
        """Plan a failover. Return the new master when all sentinels name it.

        Args:
            coordinated: stop writes first, so that nothing is lost. Valkey 9 has it, Redis does not.
        """
        old = self.master
        self.sentinels[0].ask("FAILOVER", self.name, *(["COORDINATED"] if coordinated else []))
        return self.wait_for_another(old)

    def wait_for_another(self, old: MonitoredServer, seconds: float = 30.0) -> MonitoredServer:
        """Wait until all running sentinels name another master. Return it.

        Args:
            old: the master before.
            seconds: time limit.
        """

        def named() -> set[int]:
            running = (sentinel for sentinel in self.sentinels if sentinel.process is not None)
            return {int(sentinel.ask("GET-MASTER-ADDR-BY-NAME", self.name)[1]) for sentinel in running}

        wait_until(lambda: len(named()) == 1 and old.monitored_port not in named(), "another master", seconds)
        return self.master

    def stop(self) -> None:
        """End all."""
        for process in (*self.sentinels, *self.servers):
            process.kill()

    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _ready(self) -> bool:
        running = [sentinel for sentinel in self.sentinels if sentinel.process is not None]
        try:
            states = [self._state(sentinel) for sentinel in running]
            named = {sentinel.ask("GET-MASTER-ADDR-BY-NAME", self.name)[1] for sentinel in running}
        except redis.RedisError:
            return False
        others = str(len(self.sentinels) - 1)
        return len(named) == 1 and all(
            state["num-other-sentinels"] == others and int(state["num-slaves"]) >= 2 and state["flags"] == "master"
            for state in states
        )

    def _state(self, sentinel: Sentinel) -> dict[str, str]:
        """Return ``SENTINEL MASTER`` as a dict."""
        found = sentinel.ask("MASTER", self.name)
        return {found[i].decode(): found[i + 1].decode() for i in range(0, len(found), 2)}


@contextmanager
def running_sentinels(
    folder: Path, *options: str, sentinel_lines: Sequence[str] = (), tls: ServerTls | None = None
) -> Iterator[SentinelSystem]:
    """Run a master, two replicas and three sentinels.

    Args:
        folder: working folder of all.
        options: more options of the master and the replicas.
        sentinel_lines: more lines of the sentinels' configuration.
        tls: TLS for all connections.
    """
    system = SentinelSystem(folder, *options, sentinel_lines=sentinel_lines, tls=tls)
    try:
        system.start()
        yield system
    finally:
        system.stop()
