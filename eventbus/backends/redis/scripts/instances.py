"""The Lua scripts of ``lua/instances`` as typed functions: leases and records of gateway instances."""

from __future__ import annotations

from collections.abc import Sequence

from eventbus.backends.instances import InstanceLease, InstanceRecord, Renewal, parse_instance
from eventbus.backends.redis.connections.resp import Command
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Call, Reply, script
from eventbus.errors import InvalidRecord
from eventbus.settings import BusSettings

__all__ = ["leave", "list_instances", "renew"]


def renew(settings: BusSettings, keys: Keys, life: str, record: InstanceRecord) -> Call[Renewal]:
    """Call ``renew.lua``.

    Args:
        settings: names the lease, and how long an ended one is remembered.
        keys: names of the keys.
        life: the process; a text without a space.
        record: what it says of itself.

    Returns:
        The call.
    """
    times = (int(settings.instance_lease * 1000), int(settings.instance_window * 1000))
    return Call(script("instances/renew"), keys.instances, (life, record.name, record.json, *times), _decode_renewal)


def _decode_renewal(reply: Reply) -> Renewal:
    held, namesakes = reply
    return Renewal(bool(held), int(namesakes))


def leave(keys: Keys, life: str, name: str) -> Sequence[Command]:
    """Return the commands that forget a process.

    Args:
        keys: names of the keys.
        life: the process.
        name: its name.
    """
    leases, records = keys.instances
    member = f"{life} {name}"
    return (("ZREM", leases, member), ("HDEL", records, member))


def list_instances(keys: Keys) -> Call[list[InstanceLease]]:
    """Call ``list.lua``. A record that cannot be read is left out.

    Args:
        keys: names of the keys.

    Returns:
        The call. It returns the instances by name, the newest process of each name first.
    """
    return Call(script("instances/list"), keys.instances, (), _decode_list)


def _decode_list(reply: Reply) -> list[InstanceLease]:
    found: list[InstanceLease] = []
    for member, left, text in reply:
        try:
            record = parse_instance(text)
        except InvalidRecord:
            continue
        life = member.decode("utf-8", "replace").partition(" ")[0]
        found.append(InstanceLease(life, record, int(left) / 1000))
    return sorted(found, key=lambda lease: (lease.record.name, -lease.record.started))
