"""A listener that writes down what it hears."""

from __future__ import annotations


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.received_ = []
        self.probes = []
        self.revocations = 0
        self.losses = []
        self.restorations = 0

    def received(self, channel, payload) -> None:
        self.received_.append((channel, payload))

    def turn_ended(self) -> None:
        pass

    def revoked(self) -> None:
        self.revocations += 1

    def canary_received(self, text) -> None:
        self.probes.append(text)

    def lost(self, reason) -> None:
        self.losses.append(reason)

    def restored(self) -> None:
        self.restorations += 1
