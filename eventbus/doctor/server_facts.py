"""Facts of one Redis server, and of what the bus keeps there. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ServerFacts"]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Facts that one connection learned of a server. None: it could not be read.

    Attributes:
        info: the reply to ``INFO`` by name; empty if the user may not run it.
        user: name of the user.
        commands: the rules of the user about commands, as ``ACL GETUSER`` gives them.
        keys: the rules of the user about keys.
        config: the configuration, as far as the user may read it.
        missing: rights that the user lacks.
        anonymous: whether the server takes commands without a password.
        local: whether the address is a loopback address or a socket in the file system.
        tls: whether the connection is encrypted.
        verified: whether the certificate of the server is checked.
        clock_ms: the server's clock minus this machine's, in milliseconds.
        clock_error_ms: how wrong that may be.
        round_trip: seconds until a publication arrived.
        round_trip_error: why none arrived; empty if one did.
        formats: formats of the data that the running gateways read.
        own_format: the format that this version writes.
    """

    info: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    commands: str | None = None
    keys: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    anonymous: bool | None = None
    local: bool = False
    tls: bool = False
    verified: bool = True
    clock_ms: float | None = None
    clock_error_ms: float = 0.0
    round_trip: float | None = None
    round_trip_error: str = ""
    formats: tuple[int, ...] = ()
    own_format: int = 0
