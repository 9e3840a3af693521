"""The Lua scripts of revocations as typed functions."""

from __future__ import annotations

import logging
import math
from typing import cast

from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import Call, Reply, script
from eventbus.backends.revocations import (
    CHANGES_PER_READING,
    ENDED_LIFE,
    Revocation,
    RevocationRequest,
    parse_revocation,
)
from eventbus.errors import InvalidRecord, TooManyRevocations
from eventbus.settings import BusSettings

__all__ = ["changes", "revoke"]

log = logging.getLogger(__name__)


def revoke(settings: BusSettings, keys: Keys, request: RevocationRequest) -> Call[Revocation]:
    """Call ``revoke.lua``: keep a revocation, and announce it to all gateways.

    Args:
        settings: limit and lifetime.
        keys: names of the keys.
        request: what to revoke.

    Returns:
        The call. Its decoder raises TooManyRevocations.
    """
    life = math.ceil(settings.revocation_ttl.total_seconds())
    if request.kind == "sessions":
        life = min(life, ENDED_LIFE)
    limit = settings.revocation_limit
    args = (request.member, request.issued_before, life, limit, request.by, request.reason, keys.revoked)

    def decode(reply: Reply) -> Revocation:
        done, *rest = cast("list[bytes]", reply)
        if not int(done):
            raise TooManyRevocations(limit)
        entry, number = rest
        return parse_revocation(request.member.encode(), entry, int(number))

    return Call(script("revocations/_revocations", "revocations/revoke"), keys.revocations, args, decode)


def changes(keys: Keys, after: int) -> Call[list[Revocation]]:
    """Call ``changes.lua``: read what was revoked after a change.

    Args:
        keys: names of the keys.
        after: number of the last known change.

    Returns:
        The call.
    """
    pieces = ("revocations/_revocations", "revocations/changes")
    return Call(script(*pieces), keys.revocations, (after, CHANGES_PER_READING), _decode_changes)


def _decode_changes(reply: Reply) -> list[Revocation]:
    found = []
    for i in range(0, len(reply), 3):
        member, entry, number = reply[i : i + 3]
        try:
            found.append(parse_revocation(member, entry, int(number)))
        except InvalidRecord as error:
            # A foreign entry must not hide the others.
            log.warning("cannot read a revocation: %s", error)
    return found
