"""Bounds on what one WebSocket connection sends: frames of any kind, and bytes. Time is an argument.

The rate limit of commands does not see pings, pongs, fragments and empty frames. They cost time as well.
"""

from __future__ import annotations

from eventbus.flow.token_bucket import TokenBucket
from webui_adapter.settings import GatewaySettings

__all__ = ["InboundLimit"]


class InboundLimit:
    """Counts the frames and bytes of one connection. The rates are lower until the connection has a token.

    Args:
        settings: the rates.
        now: the clock's time in seconds.

    Attributes:
        exceeded: which rate the connection exceeded last: ``frames`` or ``bytes``.
    """

    __slots__ = ("_bytes", "_frames", "_known", "_over_since", "_settings", "exceeded")

    def __init__(self, settings: GatewaySettings, now: float) -> None:
        self._settings = settings
        self._known = False
        self._over_since: float | None = None
        self._frames = TokenBucket(settings.unauthenticated_frame_rate_limit, now)
        self._bytes = TokenBucket(settings.unauthenticated_byte_rate_limit, now)
        self.exceeded = "frames"

    def charge(self, frames: int, size: int, now: float, *, known: bool) -> float:
        """Count what was read.

        Args:
            frames: the frames. A read without a whole frame counts as one.
            size: their bytes.
            now: the clock's time in seconds.
            known: whether the connection has a token.

        Returns:
            Seconds for which nothing more should be read; 0: read on.
        """
        if known and not self._known:
            self._known = True
            self._frames = TokenBucket(self._settings.frame_rate_limit, now)
            self._bytes = TokenBucket(self._settings.byte_rate_limit, now)
        if not frames and not size:
            return 0.0  # Bytes that waited are still no whole frame. That is no sign that the flood has ended.
        wait, of_bytes = self._frames.charge(frames or 1, now), self._bytes.charge(size, now)
        if not wait and not of_bytes:
            self._over_since = None
            return 0.0
        self.exceeded = "frames" if wait >= of_bytes else "bytes"
        if self._over_since is None:
            self._over_since = now
        return max(wait, of_bytes)

    def exhausted(self, now: float) -> bool:
        """Return whether the connection has exceeded a rate for longer than it may.

        Args:
            now: the clock's time in seconds.
        """
        return self._over_since is not None and now - self._over_since >= self._settings.flood_patience
