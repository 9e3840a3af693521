"""Checks of a Redis server. Each is a pure function of its facts; add one to ``SERVER_CHECKS``."""

from __future__ import annotations

import re
from typing import Final

from eventbus.doctor.findings import Check, Finding, bad, good, risky, unknown
from eventbus.doctor.server_facts import ServerFacts

__all__ = ["SERVER_CHECKS"]

_OLDEST: Final = {"redis": (6, 2), "valkey": (7, 2)}
_FULL, _NEARLY_FULL = 0.95, 0.75
_CLOCK_BAD_MS, _CLOCK_RISKY_MS = 10_000.0, 1_000.0
_INFO: Final = "the user may not run INFO"
_ROLES: Final = "use a user of `eventbus acl`"
# One of these rights is enough to read or destroy everything.
_DANGEROUS: Final = ("flushall", "flushdb", "config", "debug", "shutdown", "keys", "acl", "replicaof", "slaveof")


def version(facts: ServerFacts) -> Finding:
    """The server has the commands that the bus uses."""
    name = "valkey" if "valkey_version" in facts.info else "redis"
    text = facts.info.get(f"{name}_version")
    if text is None:
        return unknown("version", _INFO, _ROLES)
    found = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    oldest = _OLDEST[name]
    if found < oldest:
        return bad("version", f"{name} {text}", f"upgrade to {name} {oldest[0]}.{oldest[1]} or newer")
    return good("version", f"{name} {text}")


def eviction(facts: ServerFacts) -> Finding:
    """A full server refuses writes, and removes no log."""
    policy = facts.info.get("maxmemory_policy")
    if policy is None:
        return unknown("eviction", _INFO, _ROLES)
    if policy != "noeviction":
        return bad("eviction", f"a full server removes keys ({policy})", "set maxmemory-policy noeviction")
    evicted = int(facts.info.get("evicted_keys", 0))
    if evicted:
        return risky("eviction", f"{evicted} keys were removed before", "restart the server once the log has expired")
    return good("eviction", "noeviction")


def memory(facts: ServerFacts) -> Finding:
    """There is a limit, and it is not near."""
    most, used = (facts.info.get(name) for name in ("maxmemory", "used_memory"))
    if most is None or used is None:
        return unknown("memory", _INFO, _ROLES)
    if not int(most):
        return risky("memory", "there is no maxmemory", "set maxmemory, or the system may kill the server")
    share = int(used) / int(most)
    if share >= _FULL:
        return bad("memory", f"{share:.0%} of maxmemory is used", "raise maxmemory, or lower EVENTBUS_LOG_LIMIT")
    if share >= _NEARLY_FULL:
        return risky("memory", f"{share:.0%} of maxmemory is used", "raise maxmemory before it is full")
    return good("memory", f"{share:.0%} of maxmemory is used")


def persistence(facts: ServerFacts) -> Finding:
    """The data survive a restart, and the last save worked."""
    info = facts.info
    if "aof_enabled" not in info:
        return unknown("persistence", _INFO, _ROLES)
    for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status"):
        if info.get(name, "ok") != "ok":
            return bad("persistence", f"{name} is {info[name]}", "see the server's log; it may refuse writes soon")
    if info["aof_enabled"] == "1":
        return good("persistence", "append-only file")
    save = facts.config.get("save")
    if save:
        return good("persistence", f"snapshots ({save})")
    if save is None and int(info.get("rdb_saves", 0)):
        return good("persistence", "snapshots")
    advice = "set appendonly yes if events and queued tasks must survive a restart"
    return risky("persistence", "a restart forgets all events", advice)


def role(facts: ServerFacts) -> Finding:
    """The server takes writes."""
    name = facts.info.get("role")
    if name is None:
        return unknown("role", _INFO, _ROLES)
    if name != "master":
        return bad("role", "it is a replica", "name the master, or sentinels, in EVENTBUS_REDIS_URL")
    return good("role", f"master with {facts.info.get('connected_slaves', '0')} replicas")


def password(facts: ServerFacts) -> Finding:
    """No client gets in without a password."""
    if facts.anonymous is None:
        return unknown("password", "the server did not say whether it asks for a password", "try again")
    if not facts.anonymous:
        return good("password", "the server asks for one")
    text = "the server takes commands without a password"
    advice = "load the users of `eventbus acl`, which turn the default user off"
    return risky("password", text, advice) if facts.local else bad("password", text, advice)


def protected_mode(facts: ServerFacts) -> Finding:
    """Without a password, the server answers this machine only."""
    mode = facts.config.get("protected-mode")
    if mode is None:
        text = "the user may not read the configuration"
        if facts.anonymous is False:
            return good("protected-mode", f"{text}; the server asks for a password")
        return unknown("protected-mode", text, "run CONFIG GET protected-mode at the server")
    if mode == "yes" or facts.anonymous is False:
        return good("protected-mode", "yes" if mode == "yes" else "no, and the server asks for a password")
    advice = "set protected-mode yes, or load the users of `eventbus acl`"
    return bad("protected-mode", "no, and the server asks for no password", advice)


def user(facts: ServerFacts) -> Finding:
    """The user can do its work and nothing else."""
    if facts.user is None:
        return unknown("user", "the user may not run ACL WHOAMI", "run this command as the admin of `eventbus acl`")
    if facts.user == "default":
        return risky("user", "it is the default user, who may do everything", _ROLES)
    if facts.commands is None:
        return good("user", f"{facts.user}, who may not read its own rules")
    rules = facts.commands.split()
    wide = [rule for rule in rules if rule in {"+@all", "+@dangerous", "+@admin"}]
    wide += [f"+{name}" for name in _DANGEROUS if f"+{name}" in rules]
    keys = (facts.keys or "").split()
    if wide or "~*" in keys or "allkeys" in keys:
        reach = ", ".join([*wide, *(key for key in keys if key in {"~*", "allkeys"})])
        return risky("user", f"{facts.user} may do more than it needs: {reach}", _ROLES)
    return good("user", facts.user)


def rights(facts: ServerFacts) -> Finding:
    """The user has the rights that this command used."""
    if facts.missing:
        lacks = ", ".join(facts.missing)
        return bad("rights", f"the user lacks {lacks}", "load the rules that `eventbus acl` prints for its role")
    return good("rights", "scripts, keys and pub/sub")


def encryption(facts: ServerFacts) -> Finding:
    """Passwords and events are encrypted on the way."""
    if facts.tls:
        if facts.verified:
            return good("tls", "encrypted, and the certificate is checked")
        return risky("tls", "encrypted, and no certificate is checked", "remove ssl_cert_reqs from EVENTBUS_REDIS_URL")
    if facts.local:
        return good("tls", "not encrypted, and does not leave this machine")
    return risky("tls", "not encrypted", "use rediss:// in EVENTBUS_REDIS_URL, or a private network")


def clock(facts: ServerFacts) -> Finding:
    """The server's clock and this machine's agree."""
    if facts.clock_ms is None:
        return unknown("clock", "the user may not run TIME", _ROLES)
    difference = max(0.0, abs(facts.clock_ms) - facts.clock_error_ms)
    text = f"{facts.clock_ms / 1000:+.3f} s"
    if difference >= _CLOCK_BAD_MS:
        return bad("clock", f"the server's clock differs by {text}", "run NTP on both: events would expire wrongly")
    if difference >= _CLOCK_RISKY_MS:
        return risky("clock", f"the server's clock differs by {text}", "run NTP on both")
    return good("clock", f"differs by {text}")


def round_trip(facts: ServerFacts) -> Finding:
    """A publication arrives."""
    if facts.round_trip is None:
        text = facts.round_trip_error or "the publication did not arrive"
        return bad("round-trip", text, "see `/readyz` of a gateway, and the rights to PUBLISH and SUBSCRIBE")
    return good("round-trip", f"{facts.round_trip * 1000:.1f} ms")


def formats(facts: ServerFacts) -> Finding:
    """The gateways that run read what this version writes."""
    if not facts.formats:
        return unknown("format", "no gateway runs", "start one, and run this command again")
    oldest, newest = min(facts.formats), max(facts.formats)
    if newest > facts.own_format:
        text = f"a gateway writes format {newest}, and this version reads up to {facts.own_format}"
        return bad("format", text, "upgrade this program")
    if oldest < facts.own_format:
        text = f"a gateway reads format {oldest} only, and this version would write {facts.own_format}"
        return risky("format", text, "upgrade all gateways, then workers")
    return good("format", f"{facts.own_format}, as in {len(facts.formats)} gateways")


SERVER_CHECKS: Final[tuple[Check[ServerFacts], ...]] = (
    *(version, role, rights, round_trip, clock, formats),
    *(eviction, memory, persistence),
    *(password, protected_mode, user, encryption),
)
"""All checks of a server."""
