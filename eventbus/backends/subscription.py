"""The ports of live publications: the subscriber of a backend, and the listener that it calls."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Listener", "Subscriber"]


class Listener(Protocol):
    """Receives publications. The event loop's thread calls all methods; they must not block."""

    def received(self, channel: str, payload: bytes) -> None:
        """Take a publication of a channel.

        Args:
            channel: the channel.
            payload: the publication's bytes.
        """

    def turn_ended(self) -> None:
        """All publications of one socket read have been passed to ``received``."""

    def canary_received(self, text: str) -> None:
        """Take a canary of any instance. All publications before it have arrived.

        Args:
            text: the canary.
        """

    def revoked(self) -> None:
        """Something was revoked: read the changes of ``RevocationStore``. The call may be missing after a loss."""

    def control_received(self, payload: bytes) -> None:
        """Take a message for this process; see ``ControlChannel`` of ``backends.instances``.

        Args:
            payload: the message.
        """

    def lost(self, reason: str) -> None:
        """The subscription is broken. Publications from now on do not arrive.

        Args:
            reason: text for the log.
        """

    def restored(self) -> None:
        """All channels are subscribed again. Publications may be missing."""


class Subscriber(Protocol):
    """Receives live publications, in an event loop."""

    async def start(self, listener: Listener) -> None:
        """Connect, and reconnect from then on after each loss.

        Args:
            listener: receives the publications.
        """

    async def subscribe(self, channel: str) -> None:
        """Subscribe to a channel. Return when the server has acknowledged it.

        Args:
            channel: the channel, such as ``user:42``.

        Raises:
            Unavailable: there is no connection, or the server did not acknowledge in time.
        """

    def receive_control(self, life: str) -> None:
        """Receive the messages for a process. Call it before ``start``.

        Args:
            life: the process.
        """

    def unsubscribe(self, channel: str) -> None:
        """End a subscription.

        Args:
            channel: the channel.
        """

    def reconnect(self, reason: str) -> None:
        """Replace the connection. Call it if publications do not arrive on the present one.

        Args:
            reason: text for the log.
        """

    async def aclose(self) -> None:
        """Close the connection and end."""
