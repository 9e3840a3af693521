"""The one meaning of ``EVENTBUS_REDIS_URL``: a pure parser. ``docs/reference/redis-url.md`` describes the forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NoReturn
from urllib.parse import parse_qs, unquote

from eventbus.errors import InvalidAddress

__all__ = ["Endpoint", "Kind", "RedisAddress", "TlsOptions", "parse_redis_url"]

Kind = Literal["single", "sentinel", "cluster", "memory"]
"""Kind of an address: one server, a master that sentinels name, a Redis Cluster, or no server."""

_SCHEMES: Final[Mapping[str, tuple[Kind, bool]]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("single", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "memory": ("memory", False),
}
_FORMS: Final = (
    "redis://host:port/0, rediss://…, unix:///path, redis+sentinel://host:port,host:port/name/0, "
    "redis+cluster://host:port,host:port or memory://"
)
_PORT, _SENTINEL_PORT, _PORT_MAX = 6379, 26379, 65_535
_ENCODE: Final = "in a user or password, write a special character as % and two digits, such as %40 for @"

_CERTIFICATES: Final[Mapping[str, Literal["none", "optional", "required"]]] = {
    "none": "none",
    "optional": "optional",
    "required": "required",
    "cert_none": "none",
    "cert_optional": "optional",
    "cert_required": "required",
}
# redis-py reads these texts as false, and every other one as true.
_FALSE: Final = frozenset({"0", "F", "FALSE", "N", "NO"})
_TLS: Final = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_cert_reqs",
        "ssl_check_hostname",
    }
)
_SENTINEL: Final = frozenset({"sentinel_username", "sentinel_password"})
_OPTIONS: Final = frozenset({"username", "password", "db"}) | _TLS | _SENTINEL
# Options of redis-py's client that mean nothing here. An address may be shared with other programs.
_IGNORED: Final = frozenset(
    {
        "client_name",
        "decode_responses",
        "encoding",
        "health_check_interval",
        "legacy_responses",
        "max_connections",
        "protocol",
        "retry_on_error",
        "retry_on_timeout",
        "socket_keepalive",
        "socket_read_size",
        "timeout",
    }
)
_LIMITS: Final[Mapping[str, str]] = {
    "socket_timeout": "EVENTBUS_SOCKET_TIMEOUT",
    "socket_connect_timeout": "EVENTBUS_CONNECT_TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one server listens.

    Attributes:
        host: name or IP address; empty for a socket in the file system.
        port: TCP port; 0 for a socket in the file system.
        path: path of the socket; empty for TCP.
    """

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        """Host and port, or the path."""
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Certificates and checks of a TLS connection.

    Attributes:
        ca_certs: file with the certificates of the authorities; None: those of the system.
        ca_path: folder with the certificates of the authorities.
        certfile: file with the client's certificate, for mutual TLS.
        keyfile: file with the client's key; None: it is in ``certfile``.
        key_password: password of the key.
        cert_reqs: whether the server must show a valid certificate.
        check_hostname: whether the certificate must name the host.
    """

    ca_certs: str | None = None
    ca_path: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    key_password: str | None = None
    cert_reqs: Literal["none", "optional", "required"] = "required"
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """All that an address says. Passwords do not show in ``repr`` and ``str``.

    Attributes:
        kind: what the address names.
        nodes: the server; the sentinels; or nodes of the cluster, from which a client learns the others.
        service: the name by which sentinels know the master; else empty.
        username: user of the servers; None: the default user.
        password: password of the servers; None: no authentication.
        sentinel_username: user of the sentinels.
        sentinel_password: password of the sentinels; None: they ask for none.
        database: number of the database.
        tls: options of TLS; None: no TLS.
    """

    kind: Kind
    nodes: tuple[Endpoint, ...]
    service: str = ""
    username: str | None = None
    password: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    database: int = 0
    tls: TlsOptions | None = None

    def __str__(self) -> str:
        """Where the server is, without user, password and options: for messages."""
        if self.kind == "memory":
            return "memory://"
        nodes = ",".join(map(str, self.nodes))
        return f"{nodes}/{self.service}" if self.service else nodes

    def __repr__(self) -> str:
        """The kind, and as ``str``."""
        return f"RedisAddress({self.kind} {self}, database {self.database})"


@lru_cache(maxsize=64)
def parse_redis_url(url: str) -> RedisAddress:
    """Parse an address.

    A single server's address means the same as in redis-py.

    Args:
        url: the address.

    Returns:
        The address in parts.

    Raises:
        InvalidAddress: a part is wrong. The message does not quote the address, which may contain a password.
    """
    scheme, separator, rest = url.partition("://")
    form = _SCHEMES.get(scheme.lower()) if separator else None
    if form is None:
        _refuse("scheme", f"must read {_FORMS}")
    kind, secure = form
    rest, _, fragment = rest.partition("#")
    if fragment:
        _refuse("fragment", f"has a '#'; {_ENCODE}")
    rest, _, query = rest.partition("?")
    if kind == "memory":
        return RedisAddress("memory", ())
    options = _options(query)
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    name, colon, password = user.partition(":")
    if at and "@" in user:
        _refuse("user", f"has an '@' in the user or password; {_ENCODE}")
    database, service, nodes = _target(scheme.lower(), kind, hosts, path)
    return RedisAddress(
        kind=kind,
        nodes=nodes,
        service=service,
        username=(unquote(name) if name else None) or options.get("username") or None,
        password=(unquote(password) if colon and password else None) or options.get("password") or None,
        sentinel_username=options.get("sentinel_username") or None,
        sentinel_password=options.get("sentinel_password") or None,
        database=_database(options.get("db", database), kind),
        tls=_tls(options) if secure else None,
    )


def _refuse(part: str, text: str) -> NoReturn:
    raise InvalidAddress(f"EVENTBUS_REDIS_URL {text}", part=part)


def _options(query: str) -> dict[str, str]:
    options = {name: values[0] for name, values in parse_qs(query).items()}
    for name in options:
        if name in _LIMITS:
            _refuse("options", f"has a time limit; set {_LIMITS[name]} instead")
        if name not in _OPTIONS and name not in _IGNORED:
            _refuse("options", f"has an unknown option after the '?'; known are {', '.join(sorted(_OPTIONS))}")
    return options


def _target(scheme: str, kind: Kind, hosts: str, path: str) -> tuple[str, str, tuple[Endpoint, ...]]:
    """Return the database's text, the service's name and the nodes."""
    if scheme == "unix":
        if hosts or not path:
            _refuse("path", "must name a socket by its whole path, as in unix:///run/redis.sock")
        return "", "", (Endpoint("", 0, "/" + unquote(path)),)
    default = _SENTINEL_PORT if kind == "sentinel" else _PORT
    nodes = tuple(_node(text, default) for text in hosts.split(","))
    if kind == "single" and len(nodes) > 1:
        _refuse("hosts", "names several hosts; write redis+sentinel://… or redis+cluster://…")
    service = ""
    if kind == "sentinel":
        service, _, path = path.partition("/")
        service = unquote(service)
        if not service:
            _refuse("service", "must name the master after the sentinels, as in redis+sentinel://host:26379/mymaster/0")
    return unquote(path).replace("/", ""), service, nodes


def _node(text: str, default: int) -> Endpoint:
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]*))(?::(\d*))?", text)
    if found is None:
        _refuse("port", f"has a port that is not a number; {_ENCODE}")
    port = int(found[3]) if found[3] else default
    if not 0 < port <= _PORT_MAX:
        _refuse("port", f"has a port that is not from 1 to {_PORT_MAX}")
    return Endpoint(unquote(found[1] or found[2] or "localhost").lower(), port)


def _database(text: str, kind: Kind) -> int:
    if text and not re.fullmatch(r"[0-9]{1,6}", text):
        _refuse("database", f"has a database that is not a number; must read {_FORMS}")
    database = int(text or 0)
    if database and kind == "cluster":
        _refuse("database", "names a database; a cluster has only database 0")
    return database


def _tls(options: Mapping[str, str]) -> TlsOptions:
    required = _CERTIFICATES.get(options.get("ssl_cert_reqs", "required").lower())
    if required is None:
        _refuse("ssl_cert_reqs", "has an ssl_cert_reqs that is not none, optional or required")
    return TlsOptions(
        ca_certs=options.get("ssl_ca_certs"),
        ca_path=options.get("ssl_ca_path"),
        certfile=options.get("ssl_certfile"),
        keyfile=options.get("ssl_keyfile"),
        key_password=options.get("ssl_password"),
        cert_reqs=required,
        check_hostname=required != "none" and options.get("ssl_check_hostname", "yes").upper() not in _FALSE,
    )
