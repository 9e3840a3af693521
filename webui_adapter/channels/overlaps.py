"""Publications from before a reading may arrive after it. Which channels expect them? No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventbus.protocol.records import Publication
from webui_adapter.channels.channel import Channel

__all__ = ["Overlaps"]


class Overlaps:
    """The channels to which publications from before their last reading may still arrive."""

    def __init__(self) -> None:
        """Begin without a channel."""
        self._readings = 0
        self._open: dict[str, int] = {}  # channel -> number of its last reading

    def begin(self, channel: Channel, buffered: Sequence[Publication], heard: int) -> None:
        """Note a reading.

        Args:
            channel: The channel, at its new position.
            buffered: The publications that arrived before the reading was used.
            heard: The offset up to which publications had arrived before these.
        """
        self._readings += 1
        self._open[channel.name] = self._readings
        channel.heard = buffered[-1].records[-1].offset if buffered else heard
        channel.read_to = channel.offset

    def forget(self, name: str) -> None:
        """Forget a channel.

        Args:
            name: The channel.
        """
        self._open.pop(name, None)

    def readings(self) -> dict[str, int]:
        """Return the channels, each with the number of its last reading: an argument of ``end``."""
        return dict(self._open)

    def end(self, readings: Mapping[str, int], channels: Mapping[str, Channel]) -> None:
        """Note that every publication from before these readings has arrived.

        Args:
            readings: A result of ``readings`` from before a canary that has arrived.
            channels: All channels by name.
        """
        for name, number in readings.items():
            if self._open.get(name) == number:
                del self._open[name]
                if name in channels:
                    channels[name].read_to = -1
