"""The rules of Redis' users: the reference page, and the ACL file of the compose set."""

from __future__ import annotations

from table import GENERATED, table

from demo.settings import DemoSettings
from eventbus.backends.redis.acl.roles import ROLES, Role, acl_file

INTRODUCTION = f"""{GENERATED.format(source="eventbus/backends/redis/acl/roles.py")}

# Redis roles

`eventbus acl` prints these rules as an ACL file. [Restrict Redis
users](../how-to/restrict-redis-users.md) says how to use it. `eb` is `EVENTBUS_KEY_PREFIX`. `{{db}}`
is the database of Celery's broker. [Redis keys](redis-keys.md) describes the keys.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *map(section, ROLES)])


def file() -> str:
    """The ACL file of the compose set."""
    return acl_file(broker_prefix=f"{DemoSettings.model_fields['prefix'].default}:")


def section(role: Role) -> str:
    """The rules of one role."""
    commands = [rule[1:] for rule in role.rules() if rule.startswith("+")]
    rows = [
        ["keys", names(role.keys)],
        ["pub/sub channels", names(role.channels)],
        ["commands", names(commands)],
        ["also in a cluster", names(role.in_cluster)],
    ]
    return f"## {role.name}\n\nUser `{role.user}`. {role.purpose}\n\n{table(['what', 'patterns or names'], rows)}\n"


def names(texts: object) -> str:
    """Texts as code."""
    return ", ".join(f"`{text}`" for text in texts) or "none"  # type: ignore[attr-defined]
