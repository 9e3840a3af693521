"""The roles of Redis' users: which commands, keys and pub/sub channels each program needs.

``eventbus acl`` prints them as lines of an ACL file, and ``compose/users.acl`` has them. The commands of the scripts
are read from their sources, so a script that uses a new command changes the roles that run it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["ADMIN", "BROKER", "EMITTER", "GATEWAY", "METRICS", "ROLES", "Role", "acl_file", "commands_of_scripts"]

_LUA: Final = Path(__file__).parents[1] / "lua"
_CALL: Final = re.compile(r"""call\('([A-Z]+)'""")


@dataclass(frozen=True, slots=True)
class Role:
    """The rights of one kind of program.

    Attributes:
        name: the role.
        purpose: the programs that have it, for a comment.
        commands: commands that the program sends; ``script|load`` is one form of a command.
        scripts: Lua files whose commands it needs too, as patterns below ``lua/``.
        keys: patterns of its keys; ``eb`` stands for the prefix.
        channels: patterns of its pub/sub channels.
        in_cluster: commands that it needs in a cluster in addition.
    """

    name: str
    purpose: str
    commands: tuple[str, ...]
    keys: tuple[str, ...]
    scripts: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    in_cluster: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """The name of its user in Redis."""
        return f"eventbus-{self.name}"

    @property
    def password(self) -> str:
        """The place of its password in an ACL file."""
        return f"${{REDIS_{self.name.upper()}_PASSWORD}}"

    def rules(
        self, prefix: str = "eb", *, broker: int = 1, broker_prefix: str = "", cluster: bool = False
    ) -> list[str]:
        """Return its rules without the user and the password.

        Args:
            prefix: the prefix of all keys.
            broker: number of the database that is Celery's broker.
            broker_prefix: Celery's ``global_keyprefix``; empty: none.
            cluster: whether the server is a node of a cluster.
        """
        of_broker = broker_prefix if self is BROKER else ""
        channels = [f"{of_broker}{pattern}" for pattern in self.channels]
        commands = {*self.commands, *commands_of_scripts(self.scripts)}
        if cluster:
            commands.update(self.in_cluster)
        return [
            *("resetkeys", "resetchannels", "-@all"),
            *dict.fromkeys(f"~{_named(pattern, prefix, broker_prefix)}" for pattern in self.keys),
            *(f"&{_named(pattern, prefix).replace('{db}', str(broker))}" for pattern in channels),
            *(f"+{command}" for command in sorted(commands)),
        ]


_CONNECTION: Final = ("acl|whoami", "cluster|info", "ping", "select")
_SCRIPTS: Final = ("eval", "evalsha", "script|load")
_CLUSTER: Final = ("asking", "cluster|slots", "exec", "multi")
_INDICES: Final = ("eb:leases", "eb:cancelled", "eb:letters", "eb:{index}")
_OF_CHANNELS: Final = tuple(
    f"eb:{{*}}:{name}"
    for name in ("state", "log", "snapshot", "ids", "pending", "pending:*", "dead", "dead:*", "acked", "tombstones")
)
_OF_OPERATIONS: Final = ("eb:{*}:operation:*", "eb:{*}:operations")
_AT_SHARDS: Final = ("eb:{*}:mark:*", "eb:{*}:durable")
_TIMELINE: Final = ("eb:{timeline*}", "eb:{timeline*}:*")

EMITTER: Final = Role(
    name="emitter",
    purpose="Celery workers, and applications that start operations. It cannot read logs or publications.",
    commands=(
        *_CONNECTION,
        *_SCRIPTS,
        *(
            "expire",
            "get",
            "hdel",
            "hexists",
            "hget",
            "hgetall",
            "hmget",
            "hset",
            "info",
            "pubsub|numsub",
            "set",
            "wait",
        ),
        *("zadd", "zmscore", "zrangebyscore", "zremrangebyrank", "zremrangebyscore", "zscore"),
        *("exists", "hvals"),  # of channel/read.lua, without its log
    ),
    scripts=(
        *("channel/_*", "channel/publish", "channel/fork", "lists/*", "pending/_*", "timeline/*"),
        *("operations/_*", "operations/record", "operations/cancel", "operations/renew"),
        *("operations/list", "operations/describe"),
    ),
    keys=(
        *_OF_CHANNELS,
        *_OF_OPERATIONS,
        *_INDICES,
        *_TIMELINE,
        "eb:gateways",
        "eb:outbox:*",
        "eb:durable",
        *_AT_SHARDS,
    ),
    channels=("eb:{*}:live*", "eb:probe*"),
    in_cluster=(*_CLUSTER, "del", "get"),
)

GATEWAY: Final = Role(
    name="gateway",
    purpose="Gateways, and applications that include one and may emit themselves.",
    commands=(
        *EMITTER.commands,
        *("getdel", "incr", "pexpire", "publish", "subscribe", "unsubscribe", "zrange", "zrem", "zscan"),
        *("del", "hlen", "xadd", "xrange", "xrevrange", "xtrim", "zcard"),
    ),
    scripts=("*/*",),
    keys=("eb:*",),
    channels=("eb:*",),
    in_cluster=_CLUSTER,
)

ADMIN: Final = Role(
    name="admin",
    purpose="Operators: the commands of `eventbus`, such as dead-letters, audit and doctor.",
    commands=(*GATEWAY.commands, "acl|getuser", "scan", "time"),
    scripts=("*/*",),
    keys=("eb:*",),
    channels=("eb:*",),
    in_cluster=_CLUSTER,
)

METRICS: Final = Role(
    name="metrics",
    purpose="Monitoring: the state of the server, and counts. It cannot read events, and changes nothing.",
    commands=(
        *_CONNECTION,
        *("dbsize", "info", "latency|latest", "slowlog|len", "zcard", "zcount", "hget", "hmget", "hgetall", "hlen"),
        *("ttl", "type", "zrange"),
    ),
    keys=("eb:letters*", "eb:{index}*", "eb:gateways", "eb:leases", "eb:cancelled", "eb:outbox:*"),
    in_cluster=("cluster|slots",),
)

BROKER: Final = Role(
    name="broker",
    purpose="Celery with Redis as broker and result backend: workers, applications, Flower. It has no key of the bus.",
    commands=(
        *_CONNECTION,
        # Not client|setinfo: Redis before 7.2 does not load a file with it, and redis-py does without.
        *("brpop", "client|setname", "decr", "del", "discard", "eval", "evalsha", "exec", "exists"),
        *("expire", "get", "hdel", "hget", "hset", "incr", "info", "keys", "lindex", "llen", "lpush", "lrange", "mget"),
        *("multi", "pexpire", "psubscribe", "pttl", "publish", "punsubscribe", "rpop", "rpush", "sadd", "scard"),
        *(
            "script|exists",
            "script|load",
            "set",
            "setex",
            "sismember",
            "smembers",
            "srem",
            "subscribe",
            "time",
            "ttl",
            "type",
            "unsubscribe",
        ),
        *(
            "unwatch",
            "watch",
            "zadd",
            "zcard",
            "zcount",
            "zrange",
            "zrangebyscore",
            "zrem",
            "zrevrangebyscore",
            "zscore",
        ),
    ),
    keys=("celery*", "_kombu*", "unacked*", "*.pidbox*", "*celeryev*"),
    # PSUBSCRIBE needs a rule that reads like its pattern, so the database is a part of the rule.
    channels=(
        *("celery*", "/{db}.*", "/{db}.celery.pidbox", "/{db}.reply.celery.pidbox"),
        *("/{db}.celeryev/*", "/{db}.celeryev/worker.*"),
    ),
)

ROLES: Final = (EMITTER, GATEWAY, ADMIN, METRICS, BROKER)
"""All roles."""


@cache
def commands_of_scripts(patterns: tuple[str, ...]) -> frozenset[str]:
    """Return the commands that scripts use.

    Args:
        patterns: Lua files as patterns below ``lua/``, without the suffix.
    """
    return frozenset(_commands(path for pattern in patterns for path in _LUA.glob(f"{pattern}.lua")))


def acl_file(
    roles: Iterable[Role] = ROLES,
    prefix: str = "eb",
    *,
    broker: int = 1,
    broker_prefix: str = "",
    cluster: bool = False,
) -> str:
    """Return the lines of an ACL file. The default user, who may do everything, is off.

    Args:
        roles: the roles.
        prefix: the prefix of all keys.
        broker: number of the database that is Celery's broker.
        broker_prefix: Celery's ``global_keyprefix``; empty: none.
        cluster: whether the server is a node of a cluster.
    """
    lines = []
    for role in roles:
        rules = role.rules(prefix, broker=broker, broker_prefix=broker_prefix, cluster=cluster)
        lines.append(" ".join(("user", role.user, "on", f">{role.password}", *rules)))
    return "\n".join(["user default off", *lines, ""])


def _commands(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        source = file.read_text(encoding="utf-8")
        yield from (found.lower() for found in _CALL.findall(source))
        if "call(PUBLISH" in source or "'PUBLISH'" in source:
            yield "publish"


def _named(pattern: str, prefix: str, broker_prefix: str = "") -> str:
    if pattern.startswith("eb:"):
        return f"{prefix}{pattern[2:]}"
    return f"{broker_prefix}*" if broker_prefix else pattern
