"""Packs commands as bytes (RESP) with hiredis: redis-py's packing costs more than the socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import hiredis

__all__ = ["Command", "pack"]

Command = tuple[str | bytes | int, ...]

# hiredis' stub declares a tuple of one element.
pack: Callable[[Command], bytes] = cast("Callable[[Command], bytes]", hiredis.pack_command)
