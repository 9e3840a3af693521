"""Errors of servers about missing rights. Pure."""

from __future__ import annotations

import pytest
import redis

from eventbus.backends.redis.acl.denials import missing_right
from eventbus.backends.redis.connections.errors import classify, describe_refusal, no_permission
from eventbus.errors import NotPermitted, TransportError

TEXTS = {
    "NOPERM User emitter has no permissions to run the 'evalsha' command": "evalsha",
    "NOPERM User emitter has no permissions to run the 'config|get' command": "config|get",
    "NOPERM this user has no permissions to run the 'flushall' command or its subcommand": "flushall",
    "NOPERM No permissions to access a key": "key",
    "NOPERM this user has no permissions to access one of the keys used as arguments": "key",
    "NOPERM this user has no permissions to access one of the channels used as arguments": "channel",
    "NOPERM No permissions to access a channel": "channel",
    "ERR ACL failure in script: User x has no permissions to run the 'xadd' command script: 1, @user_script:1.": "xadd",
    "ERR ACL failure in script: No permissions to access a channel script: 1, on @user_script:148.": "channel",
    "The user executing the script can't run this command or subcommand script: 85a, on @user_script:1.": "command",
    "ERR Error running script (call to f_1): @user_script:3: The user executing the script can't run this command or "
    "subcommand": "command",
    "ERR Error running script (call to f_1): @user_script:3: The user executing the script can't access at least one "
    "of the keys mentioned in the command arguments": "key",
    "ERR Error running script (call to f_1): @user_script:3: The user executing the script can't publish to the "
    "channel mentioned in the command": "channel",
}


@pytest.mark.parametrize(("text", "right"), TEXTS.items())
def test_the_right_is_named(text: str, right: str) -> None:
    error = classify(redis.ResponseError(text))
    assert isinstance(error, NotPermitted)
    assert (error.right, error.code) == (right, "NOPERM")
    assert describe_refusal(error) == f"its user lacks the right to {right}"
    assert no_permission(error)


@pytest.mark.parametrize("text", ["OOM command not allowed", "READONLY no", "ERR unknown key", "NOAUTH no", ""])
def test_other_errors_name_none(text: str) -> None:
    assert missing_right(text) is None
    error: TransportError = classify(redis.ResponseError(text))
    assert not isinstance(error, NotPermitted)


def test_redis_py_cuts_the_code_off() -> None:
    error = classify(redis.exceptions.NoPermissionError("No permissions to access a key"))
    assert isinstance(error, NotPermitted)
    assert error.right == "key"
