"""Lists against a model, by random steps on a real server: nothing appears twice, nothing vanishes."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from eventbus import BusSettings
from eventbus.backends.dead_letters import parse_dead
from eventbus.backends.redis.scripts import pending as pending_calls
from eventbus.protocol.cursor import Position
from tests.eventbus.backends.test_pending import USER, Minor, Ordinary, Post, Urgent

LIMIT = 4
KINDS = {"high": Urgent, "normal": Ordinary, "low": Minor}


class Lists(RuleBasedStateMachine):
    """The model: where each id is. ``pending`` keeps the order in which they came, by lane."""

    url = ""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        prefix = f"m{uuid.uuid4().hex[:10]}"
        settings = BusSettings(
            redis_url=self.url,
            key_prefix=prefix,
            pending_limit=LIMIT,
            ack_attempts=2,
            dead_limit=500,
            # A busy machine is not the subject here.
            connect_timeout=20,
            socket_timeout=20,
        )
        self.post = Post(settings, self.url)
        self.pending: dict[str, list[str]] = {lane: [] for lane in KINDS}
        self.acked: set[str] = set()
        self.dead: set[str] = set()
        self.purged: set[str] = set()
        self.known: list[str] = []
        self.attempts: dict[str, int] = {}
        self.number = 0

    def teardown(self) -> None:
        if hasattr(self, "post"):
            self.loop.run_until_complete(self.post.reader.aclose())
            self.post.publisher.close()
            self.loop.close()

    def _forget(self, id_: str) -> None:
        for lane in self.pending.values():
            if id_ in lane:
                lane.remove(id_)

    @property
    def waiting(self) -> list[str]:
        return [id_ for lane in self.pending.values() for id_ in lane]

    @rule(lane=st.sampled_from(sorted(KINDS)))
    def publish(self, lane: str) -> None:
        self.number += 1
        (id_,) = self.post.emit(KINDS[lane](n=self.number), id_=f"e{self.number}")
        self.known.append(id_)
        self._add_pending(lane, id_)

    def _add_pending(self, lane: str, id_: str) -> None:
        self.attempts[id_] = 0
        self.pending[lane].append(id_)
        if len(self.pending[lane]) > LIMIT:
            self.dead.add(self.pending[lane].pop(0))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def publish_again(self, data: st.DataObject) -> None:
        """An id that is known is not published again, wherever it is now."""
        self.post.emit(Ordinary(n=0), id_=data.draw(st.sampled_from(self.known)))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(self.known), min_size=1, max_size=4, unique=True))
        gone = [id_ for id_ in ids if id_ in self.waiting]
        assert self.loop.run_until_complete(self.post.store.ack(USER, ids)) == len(gone)
        for id_ in gone:
            self._forget(id_)
            self.acked.add(id_)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(self.waiting))
        self._rewrite(id_, due=b"1")
        self.loop.run_until_complete(self.post.store.redeliver(USER, [id_]))
        if self.attempts[id_] == 2:
            self._forget(id_)
            self.dead.add(id_)
        else:
            self.attempts[id_] += 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def expire_and_sweep(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(self.waiting))
        self._rewrite(id_, expires=b"1")
        fence = self.loop.run_until_complete(self.post.store.lease("one", 60))
        assert fence is not None
        swept = self.loop.run_until_complete(self.post.store.sweep(USER, fence))
        self._forget(id_)
        self.dead.add(id_)
        assert (swept.dead_lettered, swept.pending, swept.dead) == (1, len(self.waiting), len(self.dead))

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.dead)))
        lane = self._lane_of_dead(id_)
        call = pending_calls.requeue(self.post.settings, self.post.keys, USER, [id_, id_])
        places = self.post.publisher.run(call)
        assert places[0] > 0
        assert places[1] == 0, "twice is as good as once"
        self.dead.discard(id_)
        self._add_pending(lane, id_)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.dead)))
        assert self.post.publisher.run(pending_calls.purge(self.post.settings, self.post.keys, USER, [id_])) == 1
        self.dead.discard(id_)
        self.purged.add(id_)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def acknowledge_up_to(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(self.waiting))
        upto = self._offset(id_)
        covered = [other for other in self.waiting if self._offset(other) <= upto]
        epoch = self.post.publisher.position(USER).epoch
        assert self.loop.run_until_complete(self.post.store.ack_upto(USER, Position(epoch, upto))) == len(covered)
        for other in covered:
            self._forget(other)
            self.acked.add(other)

    @precondition(lambda self: self.known)
    @rule(lost=st.sampled_from([1, 2, 3, 5, 7]))
    def lose_a_list(self, lost: int) -> None:
        """Redis evicts a lane, the list of dead letters or the tombstones. The next reads make them again."""
        self.post.redis.delete(self.post.keys.pending(USER)[lost])
        self.drain()
        self.post.publisher.run(pending_calls.list_dead(self.post.settings, self.post.keys, USER, 0, 1))

    @precondition(lambda self: self.waiting)
    @rule(lane=st.sampled_from(sorted(KINDS)))
    def find_a_lane_of_format_1(self, lane: str) -> None:
        """A program of format 1 kept the lane in a sorted set, by offset."""
        ids = self.pending[lane]
        if ids:
            _, *lanes, _, _, _, _ = self.post.keys.pending(USER)
            name = lanes[sorted(KINDS, key=("high", "normal", "low").index).index(lane)]
            self.post.redis.delete(name)
            old = name.removesuffix(":ids")
            self.post.redis.zadd(old, {id_: self._offset(id_) for id_ in ids})
            self.post.redis.expire(old, 600)
            self.drain()

    @rule()
    def drain(self) -> None:
        batch = self.loop.run_until_complete(self.post.store.fetch(USER))
        assert sorted(record.id for record in batch.records) == sorted(self.waiting)
        for number, lane in enumerate(("high", "normal", "low")):
            assert [record.id for record in batch.records if record.lane == number] == self.pending[lane]

    def _offset(self, id_: str) -> int:
        entry = self.post.redis.hget(self.post.keys.pending(USER)[0], id_)
        return int(entry.split(b"\n", 2)[1].split(b" ")[0])

    def _lane_of_dead(self, id_: str) -> str:
        entry = self.post.redis.hget(self.post.keys.pending(USER)[4], id_)
        record = parse_dead(USER, id_, entry).record
        assert record is not None
        return ("high", "normal", "low")[record.lane]

    def _rewrite(self, id_: str, due: bytes | None = None, expires: bytes | None = None) -> None:
        """As if time had passed."""
        name = self.post.keys.pending(USER)[0]
        fields, record = self.post.redis.hget(name, id_).split(b"\n", 1)
        epoch, lane, attempts, first, old_due, old_expires, requeues = fields.split()
        new = (epoch, lane, attempts, first, due or old_due, expires or old_expires, requeues)
        self.post.redis.hset(name, id_, b" ".join(new) + b"\n" + record)

    @invariant()
    def each_is_in_one_place(self) -> None:
        if not hasattr(self, "post"):
            return
        assert self.post.pending() == set(self.waiting)
        assert set(self.post.dead()) == self.dead
        acked = {id_.decode() for id_ in self.post.redis.zrange(self.post.keys.pending(USER)[6], 0, -1)}
        assert acked >= self.acked - set(self.waiting) - self.dead
        everywhere = [*self.waiting, *self.dead, *self.purged, *self.acked]
        assert set(everywhere) == set(self.known)
        assert len(self.waiting) + len(self.dead) == len({*self.waiting, *self.dead})

    @invariant()
    def the_lists_are_in_order(self) -> None:
        """Every id in a list has an entry or is a tombstone; nothing is twice in the lists; they are ordered by age."""
        if not hasattr(self, "post"):
            return
        _, *lanes, _, dead, _, tombstones = self.post.keys.pending(USER)
        lists = [self.post.redis.lrange(name, 0, -1) for name in (*lanes, dead)]
        gone = self.post.redis.hgetall(tombstones)
        counts = {int(name[1:]): int(number) for name, number in gone.items() if name.startswith(b":")}
        for number, ids in enumerate(lists):
            assert len(ids) == len(set(ids))
            marked = [id_ for id_ in ids if b"%d %b" % (number, id_) in gone]
            assert len(marked) == counts.get(number, 0)
            assert ids[:1] != marked[:1] or not ids, "a tombstone at the left end is removed immediately"
        assert len(gone) == sum(counts.values()) + len(counts)
        *found, deaths = self.post.lists()
        assert found == [self.pending[lane] for lane in ("high", "normal", "low")]
        entries = [self.post.redis.hget(self.post.keys.pending(USER)[4], id_) for id_ in deaths]
        assert set(deaths) == self.dead
        died = [parse_dead(USER, id_, entry).died for id_, entry in zip(deaths, entries, strict=True)]
        assert died == sorted(died)

    @invariant()
    def no_key_lives_forever(self) -> None:
        if hasattr(self, "post"):
            keys = self.post.keys
            names = (*keys.channel(USER), *keys.pending(USER), keys.swept(USER), keys.index, keys.totals, keys.oldest)
            assert -1 not in [self.post.redis.ttl(name) for name in names]


@pytest.mark.timeout(110)
def test_the_lists_and_the_model_agree(redis_url: str) -> None:
    machine = type("ListsHere", (Lists,), {"url": redis_url})
    run_state_machine_as_test(machine, settings=limits(max_examples=60, stateful_step_count=25))
