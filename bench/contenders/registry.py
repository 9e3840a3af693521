"""The contenders by name. A module is imported on request, so a missing package affects only its contender."""

from __future__ import annotations

import importlib
from typing import Final

from bench.contenders.contract import Contender

__all__ = ["FLOORS", "NAMES", "OURS", "load"]

_LOCATIONS: Final = {
    "ours": ("eventbus", "OURS"),
    "ours-fed": ("eventbus_direct_feed", "OURS_FED"),
    "ours-live": ("eventbus_live", "OURS_LIVE"),
    "plain": ("plain_fastapi", "PLAIN_FASTAPI"),
    "channels": ("django_channels", "DJANGO_CHANNELS"),
    "socketio": ("python_socketio", "PYTHON_SOCKETIO"),
    "node": ("node_socketio", "NODE_SOCKETIO"),
    "floor-plain": ("floor", "PLAIN"),
    "floor-coalesced": ("floor", "COALESCED"),
}
NAMES: Final = tuple(name for name in _LOCATIONS if name != "ours-live")  # only for the curves
OURS: Final = "ours"
FLOORS: Final = ("floor-plain", "floor-coalesced")


def load(name: str) -> Contender:
    """Return a contender. Raises KeyError for an unknown name, ImportError if its packages are missing."""
    module, attribute = _LOCATIONS[name]
    contender = getattr(importlib.import_module(f"bench.contenders.{module}"), attribute)
    if not isinstance(contender, Contender):
        raise TypeError(f"bench.contenders.{module}.{attribute} is not a Contender")
    return contender
