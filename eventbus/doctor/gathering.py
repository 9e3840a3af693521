"""Gathers the facts of a server, over blocking connections. The only part of the doctor that does I/O."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import redis

from eventbus.backends.redis.connections.blocking import BlockingConnection
from eventbus.backends.redis.connections.errors import classify
from eventbus.backends.redis.connections.locator import FixedLocator, Locator, blocking_locator
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.operations import list_operations
from eventbus.clock import now_ms
from eventbus.doctor.findings import Finding, bad, run_checks
from eventbus.doctor.server_checks import SERVER_CHECKS
from eventbus.doctor.server_facts import ServerFacts
from eventbus.errors import EventBusError, NotPermitted
from eventbus.protocol.formats import FORMAT
from eventbus.redis_url import Endpoint
from eventbus.settings import BusSettings

__all__ = ["examine_bus", "gather"]

_LIFE_MS: Final = 10_000
_CONFIG: Final = ("protected-mode", "save")
_REACH = "check the address, the network, the user and the password"


def examine_bus(settings: BusSettings) -> list[Finding]:
    """Check each server that the address names: the master, or the nodes of a cluster that it lists.

    Args:
        settings: the address.

    Returns:
        The findings.
    """
    address, found = settings.redis, list[Finding]()
    cluster = address.kind == "cluster"
    locators: list[Locator] = [FixedLocator(node) for node in address.nodes] if cluster else []
    for locator in locators or [blocking_locator(address, settings)]:
        name = str(address)
        try:
            endpoint = locator.locate()
            name = str(endpoint)
            facts = gather(settings, endpoint)
        except (redis.RedisError, OSError, EventBusError) as error:
            problem = classify(error) if isinstance(error, redis.RedisError | OSError) else error
            findings = [bad("connection", str(problem), _REACH)]
        else:
            findings = run_checks(SERVER_CHECKS, facts)
        found += [Finding(one.check, one.status, one.text, one.advice, name) for one in findings]
    return found


def gather(settings: BusSettings, endpoint: Endpoint) -> ServerFacts:
    """Learn the facts of one server.

    Args:
        settings: address and time limits.
        endpoint: the server.

    Returns:
        The facts.

    Raises:
        redis.RedisError, OSError, EventBusError: there is no connection.
    """
    with contextlib.closing(BlockingConnection(settings, locator=FixedLocator(endpoint))) as connection:
        return _Gathering(settings, connection, endpoint).facts()


class _Gathering:
    """One server, asked once. Collects the rights that its user lacks."""

    def __init__(self, settings: BusSettings, connection: BlockingConnection, endpoint: Endpoint) -> None:
        self._settings = settings
        self._connection = connection
        self._endpoint = endpoint
        self._keys = Keys.of(settings)
        self._missing: list[str] = []

    def facts(self) -> ServerFacts:
        address = self._settings.redis
        info = _lines(self._ask("INFO", "everything")) or _lines(self._ask("INFO"))
        user = self._optional("ACL", "WHOAMI")
        rules = self._rules(user)
        clock, error = self._clock()
        took, problem = self._round_trip()
        self._run_script()
        return ServerFacts(
            info=info,
            user=user.decode() if isinstance(user, bytes) else None,
            commands=rules.get("commands"),
            keys=rules.get("keys"),
            config=self._config(),
            anonymous=self._anonymous(),
            local=_is_local(self._endpoint),
            tls=address.tls is not None,
            verified=address.tls is None or address.tls.cert_reqs == "required",
            clock_ms=clock,
            clock_error_ms=error,
            round_trip=took,
            round_trip_error=problem,
            formats=self._formats(),
            own_format=FORMAT,
            missing=tuple(dict.fromkeys(self._missing)),
        )

    def _ask(self, *command: str | int) -> Any:
        """Run a command that every role may run. Returns None after an error."""
        return self._read(*command, needed=True)

    def _optional(self, *command: str | int) -> Any:
        return self._read(*command, needed=False)

    def _read(self, *command: str | int, needed: bool) -> Any:
        (reply,) = self._connection.round_trip([command])
        if not isinstance(reply, redis.RedisError):
            return reply
        if needed:
            self._note(reply, str(command[0]).lower())
        return None

    def _rules(self, user: Any) -> dict[str, str]:
        reply = self._optional("ACL", "GETUSER", user.decode()) if isinstance(user, bytes) else None
        if not isinstance(reply, list):
            return {}
        pairs = dict(zip(reply[::2], reply[1::2], strict=True))
        return {name.decode(): _text(value) for name, value in pairs.items() if name in {b"commands", b"keys"}}

    def _config(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in _CONFIG:
            reply = self._optional("CONFIG", "GET", name)
            if isinstance(reply, list) and len(reply) == 2:
                found[name] = reply[1].decode()
        return found

    def _clock(self) -> tuple[float | None, float]:
        began = time.time()
        reply = self._optional("TIME")
        ended = time.time()
        if not isinstance(reply, list):
            return None, 0.0
        server = int(reply[0]) * 1000 + int(reply[1]) / 1000
        return server - (began + ended) * 500, (ended - began) * 500

    def _formats(self) -> tuple[int, ...]:
        if self._keys.cluster:
            return ()  # one node has the key; a gateway says so itself
        members = self._ask("ZRANGEBYSCORE", self._keys.gateways, now_ms(), "+inf")
        numbers = (member.partition(b" ")[0] for member in members or ())
        return tuple(int(number) if number.isdigit() else FORMAT for number in numbers)

    def _run_script(self) -> None:
        """Run a script of the bus that reads a user who does not exist."""
        call = list_operations(self._keys, "user:eventbus-doctor", 1)
        if self._keys.cluster or self._ask("SCRIPT", "LOAD", call.script.source) is None:
            return
        self._ask(*call.command)  # type: ignore[arg-type] # it has no bytes

    def _anonymous(self) -> bool | None:
        """Whether the server answers a connection that has not authenticated."""
        bare = replace(self._settings.redis, username=None, password=None, database=0)
        with contextlib.closing(
            BlockingConnection(self._settings, address=bare, locator=FixedLocator(self._endpoint))
        ) as connection:
            try:
                (reply,) = connection.round_trip([("PING",)])
            except (redis.RedisError, OSError):
                return False
        return not isinstance(reply, redis.RedisError)

    def _round_trip(self) -> tuple[float | None, str]:
        """Publish a canary, and receive it."""
        channel, text = f"{self._keys.canary}:doctor", secrets.token_hex(8)
        listener = BlockingConnection(self._settings, locator=FixedLocator(self._endpoint))
        with contextlib.closing(listener):
            try:
                (subscribed,) = listener.round_trip([("SUBSCRIBE", channel)])
                if isinstance(subscribed, redis.RedisError):
                    self._note(subscribed, "subscribe")
                    return None, f"the server refuses SUBSCRIBE: {subscribed}"
                began = time.monotonic()
                (published,) = self._connection.round_trip([("PUBLISH", channel, text)])
                if isinstance(published, redis.RedisError):
                    self._note(published, "publish")
                    return None, f"the server refuses PUBLISH: {published}"
                listener.receive(1)
            except (redis.RedisError, OSError) as error:
                return None, f"the publication did not arrive: {error}"
            return time.monotonic() - began, ""

    def _note(self, error: redis.RedisError, command: str) -> None:
        denied = classify(error)
        if isinstance(denied, NotPermitted):
            of = f" of {command}" if denied.right in {"key", "channel"} else ""
            self._missing.append(f"{denied.right}{of}")


def _lines(reply: Any) -> Mapping[str, str]:
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _text(value: object) -> str:
    parts: Sequence[Any] = value if isinstance(value, list) else [value]
    return " ".join(part.decode() for part in parts if isinstance(part, bytes))


def _is_local(endpoint: Endpoint) -> bool:
    if endpoint.path or endpoint.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return False
