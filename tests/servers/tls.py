"""TLS for the servers of a test. The Valkey that pip installs has none, so Debian's ``redis-server`` runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from eventbus.testing.redis_server import free_port
from tests.servers.certificates import Authority

__all__ = ["ServerTls"]


class ServerTls:
    """Certificates of an authority, and the options that make a server use them.

    The plain port stays open for the test itself.

    Args:
        folder: where the files are written.
    """

    def __init__(self, folder: Path) -> None:
        self._authority = Authority(folder)
        self._certificate, self._key = self._authority.issue("server")

    @property
    def query(self) -> str:
        """The options of an address that trusts the authority."""
        return f"ssl_ca_certs={self._authority.file}"

    @property
    def program(self) -> str:
        """A server program with TLS."""
        found = shutil.which("redis-server")
        assert found is not None, "there is no redis-server on the PATH; make system-parts installs it"
        return found

    def files(self) -> dict[str, str]:
        """Return the settings of certificates, and those by which servers talk to each other."""
        return {
            "tls-cert-file": str(self._certificate),
            "tls-key-file": str(self._key),
            "tls-ca-cert-file": str(self._authority.file),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }

    def options(self, port: int, **more: str) -> Sequence[str]:
        """Return the options of a command line.

        Args:
            port: port for TLS.
            more: further options.
        """
        every = {
            "tls-port": str(port),
            **self.files(),
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return [part for name, value in every.items() for part in (f"--{name}", value)]

    @staticmethod
    def port() -> int:
        """Return a free port."""
        return free_port()
