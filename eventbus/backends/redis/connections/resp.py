"""Commands as bytes (RESP), by hiredis: redis-py's own packing costs more than the socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import hiredis

__all__ = ["Command", "pack"]

Command = tuple[str | bytes | int, ...]

# hiredis' stub says a tuple of one.
pack: Callable[[Command], bytes] = cast("Callable[[Command], bytes]", hiredis.pack_command)
