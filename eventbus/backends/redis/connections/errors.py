"""Classifies errors of Redis: the event is kept and sent later (``Unavailable``), or it never fits
(``Refused``).

Only errors on an explicit list refuse an event. Any other error keeps it: it may come from a wrong
address, a missing right or a server that recovers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import hiredis
import redis

from eventbus.backends.ports import IS_REPLICA
from eventbus.backends.redis.acl.denials import count_denial, missing_right
from eventbus.errors import NotPermitted, Refused, TransportError, Unavailable

__all__ = [
    "LEFT_CODES",
    "OUTDATED",
    "RETRYABLE_CODES",
    "ScriptUnknown",
    "classify",
    "describe_cluster",
    "describe_refusal",
    "is_left",
    "no_permission",
]

RETRYABLE_CODES: Final = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)
"""Error codes after which the same call works when the server has recovered."""

LEFT_CODES: Final = ("LOADING", "MASTERDOWN", "NOREPLICAS", "READONLY", "UNBLOCKED")
"""Error codes after which another server may have the data: the connection asks again where to connect."""

# Errors of one request: a key of another type, or an error within a script. Redis 6 reports an
# error of a command in a script as "ERR Error running script …: -CODE text", later ones as "CODE
# text script: …, on @user_script:12."
_REFUSALS: Final = re.compile(
    r"WRONGTYPE |ERR string exceeds maximum allowed size|ERR Error running script|.*@user_script:"
)
_WITHIN_SCRIPT: Final = re.compile(rf"ERR Error running script.*[ -](?:{'|'.join(RETRYABLE_CODES)}) ")
_LEFT_WITHIN_SCRIPT: Final = re.compile(rf"ERR Error running script.*[ -](?:{'|'.join(LEFT_CODES)}) ")
_CODE: Final = re.compile(r"[A-Z]+(?= |$)")
_CLUSTER: Final = re.compile(r"MOVED |ASK |CROSSSLOT |.*non local key in a cluster")
# redis-py has classes for the codes that it knows, and cuts the code off their text. Other errors
# keep it.
_CLUSTER_CLASSES: Final = (redis.exceptions.AskError, redis.exceptions.ClusterCrossSlotError)

_REASONS: Final[Mapping[str, str]] = {
    "OOM": "it is out of memory",
    "READONLY": IS_REPLICA,
    "MOVED": "it is a cluster",
    "MISCONF": "it cannot save its data",
    "NOREPLICAS": "it has too few replicas",
}


OUTDATED: Final = "OUTDATED"
"""Error code of our scripts: the connection has to ask for the timeline of the data again."""


class ScriptUnknown(Refused):
    """The server does not have the script: it restarted, or an operator flushed its scripts."""


def classify(error: redis.RedisError | OSError | hiredis.ReplyError) -> Unavailable | Refused:
    """Translate an error of a client library or of the server.

    Args:
        error: the error.

    Returns:
        ``Refused`` if the request can never succeed, ``ScriptUnknown`` if the script is missing,
        ``NotPermitted`` if the server's user lacks a right, else ``Unavailable``.
    """
    text = str(error)
    right = missing_right(_with_code(error, text))
    if right is not None:
        count_denial(right)
        return NotPermitted(
            f"Redis does not permit it ({text}); eventbus acl prints the rights that its user needs", right=right
        )
    found = _CODE.match(text)
    code = found[0] if found else ""
    if isinstance(error, _CLUSTER_CLASSES) or _CLUSTER.match(text):
        return Unavailable(
            f"Redis is a cluster ({text}); set EVENTBUS_REDIS_URL to redis+cluster://host:port,host:port",
            code=code,
        )
    if text.startswith("NOSCRIPT"):
        return ScriptUnknown(text, code=code)
    retryable = isinstance(error, OSError) or text.startswith(RETRYABLE_CODES) or _WITHIN_SCRIPT.match(text)
    if _REFUSALS.match(text) and not retryable:
        return Refused(f"Redis refused: {text}", code=code)
    return Unavailable(f"Redis is not available: {text}", code=code)


def is_left(text: str) -> bool:
    """Return whether another server may have the data after this error, so that its connection is to be closed.

    Args:
        text: the server's error.
    """
    return text.startswith(LEFT_CODES) or _LEFT_WITHIN_SCRIPT.match(text) is not None


def no_permission(error: Exception) -> bool:
    """Return whether the server's user may not run a command.

    Args:
        error: the error.
    """
    return isinstance(error, NotPermitted) or missing_right(_with_code(error, str(error))) is not None


def _with_code(error: Exception, text: str) -> str:
    """Return the error's text with the code that redis-py cuts off."""
    return f"NOPERM {text}" if isinstance(error, redis.exceptions.NoPermissionError) else text


def describe_cluster(info: object) -> str | None:
    """Describe a cluster of several shards. The address of one node does not reach all keys.

    Args:
        info: reply to ``CLUSTER INFO``; a server without cluster support replies with an error.

    Returns:
        A text for operators; None if one server holds all keys.
    """
    found = re.search(rb"^cluster_size:(\d+)", info, re.MULTILINE) if isinstance(info, bytes) else None
    if found is None or int(found[1]) < 2:
        return None
    return f"it is a cluster of {int(found[1])} shards; set EVENTBUS_REDIS_URL to redis+cluster://host:port,host:port"


def describe_refusal(error: TransportError) -> str:
    """Describe why a server refuses a write, for a status page.

    Args:
        error: the error.

    Returns:
        A text that stays the same as long as the reason is the same.
    """
    if isinstance(error, NotPermitted):
        return f"its user lacks the right to {error.right}"
    return _REASONS.get(error.code) or str(error).partition(": ")[2][:100]
