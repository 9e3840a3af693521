"""Classifies errors of Redis: the same call works later (``Unavailable``), or it never does
(``Refused``).
"""

from __future__ import annotations

from typing import Final

import hiredis
import redis

from eventbus.errors import Refused, Unavailable

__all__ = ["RETRYABLE_CODES", "ScriptUnknown", "classify"]

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

# redis-py has classes for the codes that it knows, and cuts the code off their text. Other errors
# keep it.
_RETRYABLE: Final = (
    OSError,
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)


class ScriptUnknown(Refused):
    """The server does not have the script: it restarted, or an operator flushed its scripts."""


def classify(error: redis.RedisError | OSError | hiredis.ReplyError) -> Unavailable | Refused:
    """Translate an error of a client library or of the server.

    Args:
        error: the error.

    Returns:
        ``Unavailable`` if the same call may work later, else ``Refused``; ``ScriptUnknown`` if the
        script is missing.
    """
    text = str(error)
    if isinstance(error, _RETRYABLE) or text.startswith(RETRYABLE_CODES):
        return Unavailable(f"Redis is not available: {text}")
    if text.startswith("NOSCRIPT"):
        return ScriptUnknown(text)
    return Refused(f"Redis refused: {text}")
