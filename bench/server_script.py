"""A fixed script of commands for a Redis server, as this version of the product sends them.

``bench.server_cost`` runs this file with the code of two commits, so it uses only what both have: ``python
server_script.py FILE`` writes one JSON object a line, with a phase's name, its events and its commands.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from eventbus import BusSettings, Event
from eventbus.backends.ports import Write
from eventbus.backends.redis.connections.resp import pack
from eventbus.backends.redis.scripts import pending
from eventbus.backends.redis.scripts.channel import publish
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.events.encoder import EmissionBuilder
from eventbus.protocol.cursor import Position

__all__ = ["phases"]

BATCH, CHANNELS = 8, 50
ROUNDS = 20  # batches of each channel in a phase without acknowledgements
TIMELINE = ("0123456789abcdef0123456789abcdef01234567.1", "")  # as a connection learns it


class Plain(Event, name="cost.plain"):
    """An event of usual size."""

    seq: int = 0
    pad: str = "x" * 120


class Acknowledged(Event, name="cost.acknowledged", deliver="ack"):
    """The same with an acknowledgement."""

    seq: int = 0
    pad: str = "x" * 120


class _Writer:
    def __init__(self) -> None:
        self._settings = BusSettings(pending_limit=BATCH)
        self._keys = Keys("eb")
        self._builder = EmissionBuilder(self._settings)
        self._numbers = count()
        self.channels = [f"user:u{number:05}" for number in range(CHANNELS)]
        self.epochs = {channel: f"{number:016x}" for number, channel in enumerate(self.channels)}

    def publications(self, kind: Callable[..., Event], per_call: int = BATCH) -> tuple[list[list[str]], list[Any]]:
        ids, calls = [], []
        for channel in self.channels:
            topic = f"{channel}:operation:1"
            emissions = [self._builder.build(topic, kind(seq=next(self._numbers))) for _ in range(per_call)]
            ids.append([emission.receipt.id for emission in emissions])
            calls.append(publish(self._settings, self._keys, Write(channel, emissions), self.epochs[channel]))
        return ids, calls

    def acks(self, ids: Sequence[Sequence[str]]) -> list[Any]:
        pairs = zip(self.channels, ids, strict=True)
        return [pending.ack(self._settings, self._keys, channel, [one]) for channel, some in pairs for one in some]

    def fetches(self) -> list[Any]:
        return [pending.fetch(self._settings, self._keys, channel, 1 << 20) for channel in self.channels]

    def acks_upto(self, offset: int) -> list[Any]:
        pairs = [(channel, Position(self.epochs[channel], offset)) for channel in self.channels]
        return [pending.ack_upto(self._settings, self._keys, channel, position) for channel, position in pairs]

    def purges(self, ids: Sequence[Sequence[str]]) -> list[Any]:
        pairs = zip(self.channels, ids, strict=True)
        return [pending.purge(self._settings, self._keys, channel, some) for channel, some in pairs]


def phases() -> Iterator[tuple[str, int, list[Any]]]:
    """Yield name, number of events and calls of each phase. A phase without a name prepares the next one."""
    writer = _Writer()
    events = BATCH * CHANNELS
    for name, per_call in (("publish, 8 a call", BATCH), ("publish, 1 a call", 1)):
        yield "", 0, [call for _ in range(ROUNDS) for call in writer.publications(Plain, per_call)[1]]
        calls = [call for _ in range(ROUNDS) for call in writer.publications(Plain, per_call)[1]]
        yield name, per_call * CHANNELS * ROUNDS, calls
    offset = 2 * ROUNDS * (BATCH + 1)
    for number in range(2):  # the first round is a warm-up
        named = number > 0
        ids, calls = writer.publications(Acknowledged)
        yield "publish with acknowledgement" if named else "", events, calls
        yield "fetch pending events" if named else "", events, writer.fetches()
        yield "acknowledge in order" if named else "", events, writer.acks(ids)
        ids, calls = writer.publications(Acknowledged)
        yield "", 0, calls
        yield "acknowledge out of order" if named else "", events, writer.acks([some[::-1] for some in ids])
        yield "", 0, writer.publications(Acknowledged)[1]
        offset += 3 * BATCH
        yield "acknowledge by position" if named else "", events, writer.acks_upto(offset)
        ids, calls = writer.publications(Acknowledged)
        yield "", 0, calls
        yield "push out of a full lane" if named else "", events, writer.publications(Acknowledged)[1]
        offset += 2 * BATCH
        yield "purge dead letters" if named else "", events, writer.purges(ids)
        yield "", 0, writer.acks_upto(offset)


def main() -> None:
    """Write the script into the file that the command line names."""
    loaded: set[str] = set()
    with open(sys.argv[1], "w", encoding="utf-8") as file:  # noqa: PTH123 - an older Path has no reason here
        for name, events, calls in phases():
            new = {call.script.sha: call.script.source for call in calls if call.script.sha not in loaded}
            loaded |= new.keys()
            commands = [
                pack(call.command_on(TIMELINE) if hasattr(call, "command_on") else call.command) for call in calls
            ]
            packed = [base64.b64encode(command).decode() for command in commands]
            line = {"name": name, "events": events, "scripts": list(new.values()), "commands": packed}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
