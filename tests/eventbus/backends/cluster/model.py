"""A model of a cluster whose shards go back, whose slots move, and of the processes and pages that use it.

The shards answer the commands of a ``ShardVoter``. Everything else is as simple as the promise allows.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from eventbus import BusSettings
from eventbus.backends.redis.cluster.topology import SLOTS, Topology, slot_of
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import script
from eventbus.backends.redis.timelines.voter import ShardVoter
from eventbus.errors import Unavailable
from eventbus.protocol.cursor import BEGINNING, Position
from eventbus.protocol.timeline import Timeline, succeed
from eventbus.redis_url import Endpoint

__all__ = ["CHANNELS", "Model", "Page", "Process"]

CHANNELS = ("user:a", "user:b", "user:c", "user:d", "user:e")
SETTINGS = BusSettings(redis_url="redis+cluster://shard:1")
KEYS = Keys.of(SETTINGS)


class Shard:
    """One master. Each write makes a state, and a restart goes back to any of them."""

    def __init__(self, number: int) -> None:
        self.node = Endpoint("shard", number)
        self.lives = number * 1000
        self.data: dict[str, Any] = {}
        self.states: list[dict[str, Any]] = [{}]

    @property
    def life(self) -> str:
        return f"{self.lives:010x}"

    def written(self) -> None:
        self.states.append(deepcopy(self.data))

    def restart(self, lost: int, slots: Iterable[int]) -> None:
        """Begin another life with an earlier state. Keys of slots that were moved away meanwhile do not return."""
        del self.states[max(1, len(self.states) - lost) :]
        own = set(slots)
        self.data = {key: value for key, value in deepcopy(self.states[-1]).items() if slot_of(key) in own}
        self.lives += 1
        self.written()


@dataclass
class Channel:
    """State and log of one channel."""

    epoch: str
    timeline: str
    offset: int = 0
    parent: str = ""
    fork: int = 0
    log: list[tuple[int, int]] = field(default_factory=list)


class Process:
    """A worker or a gateway."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.voter = ShardVoter(SETTINGS, KEYS, active=True, clock=lambda: model.now / 1000)
        self.connections: dict[Endpoint, tuple[str, object]] = {}

    def drive(self, steps: Generator[Any, Any, bool]) -> bool:
        try:
            asked = next(steps)
            while True:
                asked = steps.send({node: self.model.run(node, commands) for node, commands in asked.items()})
        except StopIteration as end:
            return bool(end.value)

    def admit(self, shard: Shard) -> bool:
        """Join a shard. False while the verdict is pending."""
        life, greeting = self.connections.get(shard.node, ("", None))
        if life != shard.life:
            greeting = object()
            self.connections[shard.node] = (shard.life, greeting)
        if not self.voter.has_joined(shard.node, greeting):
            return self.drive(self.voter.join(shard.node, greeting))
        return True

    def renew(self, *shards: Shard, idle: bool = False) -> None:
        self.drive(self.voter.renew([shard.node for shard in shards], self.model.topology, idle=idle))

    def use(self, name: str, *, create: bool) -> Channel | None:
        """Use a channel, as its script does. Try again as long as the verdict is pending."""
        slot = slot_of(f"{{{name}}}")
        for _ in range(40):
            shard = self.model.owner(slot)
            if not self.admit(shard):
                self.model.now += 400
                self.model.all_join()
                continue
            due = self.voter.renewal_due(shard.node)
            if due or self.voter.outdated:
                self.renew(*[shard] if due else [])
            try:
                return self.model.use(name, self.voter.timeline(shard.node, slot), create=create)
            except Unavailable as error:
                self.voter.refused(slot, error)
        raise AssertionError("no verdict")


@dataclass
class Page:
    """A page that reads one channel through the gateway."""

    channel: str
    connected: bool = True
    cursor: Position = BEGINNING
    received: set[int] = field(default_factory=set)
    declared: set[int] = field(default_factory=set)


class Model:
    """Three shards, two workers, a gateway and its pages."""

    def __init__(self) -> None:
        self.now, self.names, self.events = 1_000_000, count(), 0
        self.shards = [Shard(number) for number in (1, 2, 3)]
        self.owners = [self.shards[slot * 3 // SLOTS] for slot in range(SLOTS)]
        self.changed()
        self.gateway = Process(self)
        self.heard: tuple[str, Position] | None = None
        self.gateway.voter.heard = lambda: self.heard
        self.workers = [Process(self), Process(self)]
        self.pages = [Page(name) for name in CHANNELS] + [Page(CHANNELS[0]), Page(CHANNELS[1])]
        self.acknowledged: dict[str, set[int]] = {name: set() for name in CHANNELS}
        self.sync()

    # --- the cluster -------------------------------------------------------------------------------------------

    def changed(self) -> None:
        self.topology = Topology([shard.node for shard in self.owners])

    def owner(self, slot: int) -> Shard:
        return self.owners[slot]

    def run(self, node: Endpoint | None, commands: Iterable[Any]) -> list[Any]:
        return [self.execute(self.shard_of(node, command), command) for command in commands]

    def shard_of(self, node: Endpoint | None, command: Any) -> Shard:
        if node is not None:
            return next(shard for shard in self.shards if shard.node == node)
        return self.owner(slot_of(command[3] if command[0] == "EVAL" else command[1]))

    def execute(self, shard: Shard, command: Any) -> Any:
        self.now += 1
        match command:
            case ("INFO", _):
                return f"role:master\r\nmaster_replid:{shard.life}{'0' * 30}".encode()
            case ("CLUSTER", _):
                return self.slots()
            case ("GET", key):
                return shard.data.get(key)
            case ("HMGET", key, *_):
                state = shard.data.get(key)
                fields = ("", "", "", "") if state is None else (state.epoch, state.offset, state.parent, state.fork)
                return [str(value).encode() if value != "" else None for value in fields]
            case ("HDEL", key, *names):
                for name in names:
                    shard.data.get(key, {}).pop(name, None)
            case ("DEL", key):
                shard.data.pop(key, None)
            case ("EVAL", source, number, *rest):
                return self.evaluate(shard, source, rest[:number], rest[number:])
        shard.written()
        return 1

    def evaluate(self, shard: Shard, source: str, keys: list[str], args: list[Any]) -> Any:
        """Do what the scripts of timelines do."""
        if source == script("timeline/look_up").source:
            found = shard.data.get(keys[0], {"version": "0"})
            document = [str(found.get(name, "")).encode() for name in ("version", "lives", "forks", "pending")]
            voters = [part.encode() for pair in shard.data.get(keys[1], {}).items() for part in pair]
            return [*document, str(self.now).encode(), voters if args[0] == 1 else []]
        if source == script("timeline/mark").source:
            shard.data[keys[0]] = str(self.now).encode()
            shard.written()
            return [str(self.now).encode(), shard.life.encode()]
        if source == script("timeline/enter").source:
            voters = shard.data.setdefault(keys[0], {})
            for name, at, rest in zip(args[1::3], args[2::3], args[3::3], strict=True):
                if int(voters.get(name, "0").split()[0]) <= at:
                    voters[name] = f"{at} {rest}"
            shard.written()
            return None
        assert source == script("timeline/replace").source
        former, version, lives, forks, pending, _, *ended = args
        if int(shard.data.get(keys[0], {"version": 0})["version"]) != former:
            return 0
        shard.data[keys[0]] = {"version": version, "lives": lives, "forks": forks, "pending": pending}
        for name in ended:
            shard.data.get(keys[1], {}).pop(name, None)
        shard.written()
        return 1

    def slots(self) -> list[Any]:
        found: list[Any] = []
        for slot, shard in enumerate(self.owners):
            if found and found[-1][2][1] == shard.node.port:
                found[-1][1] = slot
            else:
                found.append([slot, slot, [shard.node.host.encode(), shard.node.port]])
        return found

    def use(self, name: str, timeline: Timeline, *, create: bool) -> Channel | None:
        """Do what ``_timeline.lua`` does; None for a channel without data."""
        key = KEYS.channel(name)[0]
        shard = self.owner(slot_of(key))
        channel: Channel | None = shard.data.get(key)
        if channel is None:
            if create:
                channel = shard.data[key] = Channel(f"e{next(self.names)}", timeline.name)
            return channel
        match succeed(channel.timeline, timeline):
            case "outdated":
                raise Unavailable(f"OUTDATED {channel.timeline}", code="OUTDATED")
            case "fork":
                channel.parent, channel.fork = channel.epoch, channel.offset
                channel.epoch, channel.timeline = f"e{next(self.names)}", timeline.name
                shard.written()
            case "continue":
                channel.timeline = timeline.name
                shard.written()
        return channel

    # --- events ------------------------------------------------------------------------------------------------

    def emit(self, worker: int, name: str) -> None:
        process = self.workers[worker]
        channel = process.use(name, create=True)
        assert channel is not None
        shard = self.owner(slot_of(f"{{{name}}}"))
        self.events += 1
        channel.offset += 1
        channel.log.append((channel.offset, self.events))
        shard.written()
        position = Position(channel.epoch, channel.offset)
        process.voter.note_write(shard.node, name, position)
        self.acknowledged[name].add(self.events)
        self.publish(name, position)

    def publish(self, name: str, position: Position) -> None:
        for page in self.pages:
            if page.connected and page.channel == name:
                if position.offset == 1 or page.cursor == (position.epoch, position.offset - 1):
                    self.heard = (name, position)
                    page.received.add(self.events)
                    page.cursor = position
                else:
                    self.read(page)

    def read(self, page: Page) -> None:
        channel = self.gateway.use(page.channel, create=False)
        here = BEGINNING if channel is None else Position(channel.epoch, channel.offset)
        log = [] if channel is None else channel.log
        cursor = page.cursor
        if cursor.offset == 0 or cursor.epoch != here.epoch or cursor.offset > here.offset:
            # A page without a position has nothing to compare: that is a limit of the promise.
            page.declared |= self.acknowledged[page.channel]
        page.received |= {event for offset, event in log if offset > cursor.offset}
        page.cursor = here

    # --- actions -----------------------------------------------------------------------------------------------

    def all_join(self) -> None:
        """All processes connect again by themselves."""
        for process in (self.gateway, *self.workers):
            for shard in self.shards:
                if shard in self.owners and shard.node in process.connections:
                    process.admit(shard)

    def sync(self) -> None:
        """The gateway renews its marks, and reads all channels again if data have changed."""
        serving = [shard for shard in self.shards if shard in self.owners]
        self.gateway.renew(*[shard for shard in serving if self.gateway.admit(shard)])
        if self.gateway.voter.changed():
            for page in self.pages:
                if page.connected:
                    self.read(page)

    def roll_back(self, shard: int, lost: int) -> None:
        found = self.shards[shard]
        found.restart(lost, [slot for slot, owner in enumerate(self.owners) if owner is found])

    def flush(self, shard: int) -> None:
        self.shards[shard].data.clear()
        self.shards[shard].written()

    def move(self, key: str, shard: int) -> None:
        """Move a slot with its keys."""
        slot = slot_of(key)
        source, target = self.owner(slot), self.shards[shard]
        if source is target:
            return
        for one in [one for one in source.data if slot_of(one) == slot]:
            target.data[one] = source.data.pop(one)
        source.written()
        target.written()
        self.owners[slot] = target
        self.changed()

    def toggle(self, number: int) -> None:
        """A page returns, or leaves."""
        page = self.pages[number]
        page.connected = not page.connected
        if page.connected:
            self.read(page)

    def die(self, worker: int) -> None:
        """A worker is killed. The gateway has renewed its mark since the worker's first event: see the guarantees."""
        self.sync()
        self.workers[worker] = Process(self)

    def rest(self, worker: int) -> None:
        """A worker says at each shard that it is idle."""
        self.now += 600
        process = self.workers[worker]
        for slot in process.voter.rest():
            shard = self.owner(slot)
            if process.admit(shard):
                process.renew(shard, idle=True)

    def pause(self, ms: int) -> None:
        """Time passes. A gateway renews its marks every second."""
        self.now += ms
        self.sync()

    def end(self) -> None:
        for worker in range(2):
            self.rest(worker)
        for _ in range(10):
            self.pause(400)
        for page in self.pages:
            page.connected = True
            self.read(page)
