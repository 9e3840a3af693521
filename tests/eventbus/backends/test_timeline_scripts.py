"""``join.lua`` and ``_timeline.lua`` decide as the rules of ``eventbus/protocol/timeline.py`` do."""

from __future__ import annotations

import time

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from eventbus import BusSettings
from eventbus.backends.redis.scripts import channel as calls
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.backends.redis.scripts.script import script
from eventbus.backends.redis.scripts.timeline import KEPT, RENEWAL, Joined, decode_join, join
from eventbus.protocol.timeline import Statement, Timeline, Voters, judge, succeed
from tests.conftest import RedisServer
from tests.eventbus.protocol.test_timeline import PATIENCE, SUCCESSIONS, Server
from tests.eventbus.protocol.test_timeline import RENEWAL as RENEWAL_TICKS

FORMER = "aaaaaaaaaa"
"""The server's life before this one."""


class Data:
    """The timeline's keys of one test, as the server's life before left them."""

    def __init__(self, settings: BusSettings, patience: float = 60) -> None:
        self.settings = settings.model_copy(update={"timeline_patience": patience})
        self.client = redis.Redis.from_url(settings.redis_url, decode_responses=True)
        self.keys = Keys(settings.key_prefix)
        self.timeline, self.voters = self.keys.timeline
        self.now = int(time.time() * 1000)

    def begin(self, ancestors: str = "", **voters: str) -> None:
        """Write what a former life knew. A voter's value: its last renewal as seconds ago, and maybe ``idle``."""
        self.client.hset(self.timeline, mapping={"server": FORMER, "generation": 2, "ancestors": ancestors})
        for process, said in voters.items():
            ago, *idle = said.split()
            entry = " ".join([str(self.now - int(float(ago) * 1000)), FORMER, *idle])
            self.client.hset(self.voters, process, entry)

    def join(self, process: str, statement: Statement, about: str = f"{FORMER}.2", *, idle: bool = False) -> Joined:
        command = join(self.settings, self.keys, process, statement, about, idle=idle)
        raw = redis.Redis.from_url(self.settings.redis_url)
        return decode_join(raw.execute_command(*command))

    @property
    def here(self) -> str:
        """The name of this life of the server."""
        return str(self.client.hget(self.timeline, "server"))


@pytest.fixture
def data(bus_settings: BusSettings) -> Data:
    return Data(bus_settings)


def test_a_server_without_data_is_clean_and_continues_channels_without_a_timeline(data: Data) -> None:
    assert data.join("p", "unsure", "") == ("clean", Timeline(f"{data.here}.0", "-"), pytest.approx(data.now, abs=9e4))
    assert data.here == data.client.info("replication")["master_replid"][:10]


def test_data_that_vanished_since_a_write_are_a_fork(data: Data) -> None:
    assert data.join("p", "gone")[:2] == ("forked", Timeline(f"{data.here}.0", ""))


def test_the_only_writer_finds_its_write_and_continues(data: Data) -> None:
    data.begin("bbbb.0 -", p="1")
    assert data.join("p", "intact")[:2] == ("clean", Timeline(f"{data.here}.0", f"{FORMER}.2 bbbb.0 -"))
    assert data.join("q", "intact").verdict == "clean", "the verdict stays"


@pytest.mark.parametrize("last", ["intact", "gone"])
def test_each_writer_is_waited_for(data: Data, last: Statement) -> None:
    data.begin(p="1", q="1")
    assert data.join("r", "unsure").verdict == "pending", "who is unsure says nothing"
    assert data.join("p", "intact").verdict == "pending"
    assert data.join("p", "intact").verdict == "pending", "one voter counts once"
    assert data.join("q", last).verdict == {"intact": "clean", "gone": "forked"}[last]


@pytest.mark.parametrize(
    ("other", "verdict"),
    [("1 idle", "clean"), (f"{RENEWAL + 2}", "clean"), (f"{RENEWAL + 0.5}", "pending"), ("0", "pending")],
    ids=["idle", "long before the newest", "shortly before the newest", "the newest"],
)
def test_a_voter_that_cannot_have_written_last_is_not_waited_for(data: Data, other: str, verdict: str) -> None:
    data.begin(p="1", q=other)
    assert data.join("p", "intact").verdict == verdict


def test_an_intact_write_of_another_timeline_proves_nothing(data: Data) -> None:
    data.begin(p="1")
    assert data.join("p", "intact", f"{FORMER}.1").verdict == "pending"
    assert data.join("p", "intact", "").verdict == "pending"
    assert data.join("p", "intact").verdict == "clean"


def test_the_wait_ends_with_a_fork(data: Data) -> None:
    data.begin("bbbb.0", p="1")
    assert data.join("q", "unsure").verdict == "pending"
    data.client.hincrby(data.timeline, "since", -59_000)
    assert data.join("q", "unsure").verdict == "pending"
    data.client.hincrby(data.timeline, "since", -2_000)
    assert data.join("q", "unsure")[:2] == ("forked", Timeline(f"{data.here}.0", ""))


@pytest.mark.parametrize("append_only", [True, False])
def test_without_writers_an_append_only_file_is_complete(own_redis: RedisServer, append_only: bool) -> None:
    data = Data(BusSettings(redis_url=own_redis.url))
    own_redis.client.config_set("appendonly", "yes" if append_only else "no")
    data.begin()
    verdict = data.join("p", "unsure", "").verdict
    assert (
        verdict
        == judge(Voters(False, False, False, 0, 0, append_only, False))
        == ("clean" if append_only else "pending")
    )


def test_an_append_only_file_proves_nothing_where_a_process_wrote(own_redis: RedisServer) -> None:
    """Also at the second question: how many processes the data named is kept."""
    data = Data(BusSettings(redis_url=own_redis.url))
    own_redis.client.config_set("appendonly", "yes")
    data.begin(p="1 idle")
    assert [data.join("q", "unsure", "").verdict for _ in range(3)] == ["pending"] * 3


@pytest.mark.parametrize("about", [f"{FORMER}.2", "bbbb.0", "cccc.7"])
def test_a_loss_that_is_reported_after_the_verdict_forks_all_channels_again(data: Data, about: str) -> None:
    data.begin("bbbb.0 -", p="1")
    data.join("p", "intact")
    assert data.join("late", "gone", about)[:2] == ("forked", Timeline(f"{data.here}.1", "")), "'-' stands for any"
    assert data.join("later", "gone", about).timeline.name == f"{data.here}.1", "it is known by now"


def test_a_loss_of_a_timeline_that_is_no_ancestor_is_known_already(data: Data) -> None:
    data.begin("bbbb.0", p="1")
    data.join("p", "intact")
    assert data.join("late", "gone", "cccc.0").verdict == "clean"
    assert data.join("late", "gone", "bbbb.0").verdict == "forked"


def test_a_number_that_only_a_process_remembers_is_used_again(data: Data) -> None:
    """After FLUSHALL the timeline must not repeat a name."""
    name = data.join("p", "unsure", "").timeline.name
    data.client.delete(data.timeline)
    assert data.join("p", "intact", f"{name[:-1]}3").timeline.name == f"{name[:-1]}3"
    assert data.join("q", "intact", f"{name[:-1]}1").timeline.name == f"{name[:-1]}3"


def test_sixteen_restarts_are_remembered(data: Data) -> None:
    data.begin(" ".join(f"{n:x}.0" for n in range(20)), p="1")
    ancestors = data.join("p", "intact").timeline.ancestors.split()
    assert ancestors == [f"{FORMER}.2", *(f"{n:x}.0" for n in range(15))]


def test_who_has_joined_is_a_voter_of_the_next_restart(data: Data) -> None:
    data.begin(p="1")
    data.join("stranger", "unsure")
    assert data.client.hkeys(data.voters) == ["p"], "not before the verdict"
    data.join("p", "intact")
    data.join("rests", "unsure", idle=True)
    data.join("", "unsure")
    entries = data.client.hgetall(data.voters)
    assert {process: entry.split()[1:] for process, entry in entries.items()} == {
        "p": [data.here],
        "rests": [data.here, "idle"],
    }
    assert all(abs(int(entry.split()[0]) - data.now) < 90_000 for entry in entries.values())


def test_old_voters_are_forgotten_and_the_keys_expire(data: Data) -> None:
    kept = KEPT.total_seconds()
    data.begin(old=f"{kept + 100}", young=f"{kept - 1000}", p="1")
    data.join("p", "intact")
    assert sorted(data.client.hkeys(data.voters)) == ["p", "young"]
    assert kept - 60 <= data.client.ttl(data.voters) <= kept
    assert 30 * kept - 60 <= data.client.ttl(data.timeline) <= 30 * kept


def test_a_replica_decides_nothing(own_redis: RedisServer) -> None:
    data = Data(BusSettings(redis_url=own_redis.url))
    data.begin(p="1")
    own_redis.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(redis.ReadOnlyError):
        data.join("p", "intact")


# --- what a script does with a channel --------------------------------------------------------------------------------


@pytest.mark.parametrize(("channel", "timeline", "succession"), SUCCESSIONS)
def test_a_script_treats_a_channel_as_the_rules_say(
    data: Data, channel: str | None, timeline: Timeline, succession: str
) -> None:
    state = data.keys.channel("user:ann")[0]
    data.client.delete(state)
    data.client.hset(state, mapping={"epoch": "e1", "offset": 3, "logged": 3, "until": 0})
    if channel is not None:
        data.client.hset(state, "timeline", channel)
    data.client.expire(state, 60)
    call = calls.read(data.keys, "user:ann", None)
    _, _, *arguments = call.command_on(timeline)
    if succession == "outdated":
        with pytest.raises(ResponseError, match=f"OUTDATED {channel}"):
            data.client.eval(call.script.source, *arguments)
        return
    epoch = data.client.eval(call.script.source, *arguments)[0]
    after = data.client.hgetall(state)
    assert after.get("timeline") == (channel if succession == "same" else timeline.name)
    if succession in ("fork", "keep"):
        assert (after.get("kept"), after.get("lossy")) == (("1", None) if succession == "keep" else ("0", "1"))
        assert (after["parent"], after["fork"], after["offset"]) == ("e1", "3", "3")
        assert epoch == after["epoch"] != "e1"
    else:
        assert (epoch, after["epoch"], "parent" in after) == ("e1", "e1", False)


# --- the same decisions as the model ----------------------------------------------------------------------------------

TICK = 1_000_000  # seconds; a run takes far less


class ModelServer(Server):
    """The model, without a time that each write moves."""

    def written(self) -> None:
        pass


class Both:
    """The scripts and the model, with the same data.

    The real server keeps its id. So a restart renames it in the data, and time passes in that all data get older.
    """

    def __init__(self, settings: BusSettings) -> None:
        self.model, self.keys, self.client = ModelServer(), Keys(settings.key_prefix), Data(settings).client
        self.settings = settings.model_copy(update={"timeline_patience": PATIENCE * TICK - TICK / 2})
        self.real = str(self.client.info("replication")["master_replid"])[:10]
        self.timeline, self.voters = self.keys.timeline
        self.client.delete(self.timeline, self.voters)
        self.abouts = [""]

    def _here(self, text: str) -> str:
        return text.replace(self.real, str(self.model.life))

    def restart(self) -> None:
        for key, fields in ((self.timeline, ("server", "parent", "ancestors")), (self.voters, None)):
            for name, value in self.client.hgetall(key).items():
                if fields is None or name in fields:
                    self.client.hset(key, name, self._here(value))
        self.model.life += 1

    def wait(self, ticks: int) -> None:
        self.model.now += ticks
        for name in ("since", "newest"):
            if self.client.hexists(self.timeline, name):
                self.client.hincrby(self.timeline, name, -ticks * TICK * 1000)
        for name, entry in self.client.hgetall(self.voters).items():
            at, _, rest = entry.partition(" ")
            self.client.hset(self.voters, name, f"{int(at) - ticks * TICK * 1000} {rest}")

    def join(self, process: str, statement: Statement, about: int, idle: bool) -> None:
        name = self.abouts[about % len(self.abouts)]
        server, _, number = name.partition(".")
        real = f"{self.real}.{number}" if server == str(self.model.life) else name
        args = (process, statement, real, (PATIENCE * 2 - 1) * TICK * 500, (RENEWAL_TICKS * 2 + 1) * TICK * 500, 10**10)
        command = ("EVAL", script("timeline/join").source, 2, self.timeline, self.voters, *args, int(idle))
        verdict, timeline, ancestors, _ = self.client.execute_command(*command)
        expected = self.model.join(process, statement, name, idle)
        assert (verdict == "pending") == (expected is None)
        if expected is not None:
            assert (verdict, self._here(timeline)) == (self.model.data.verdict, expected.name)
            assert self._here(ancestors).split() == expected.ancestors.split()
            self.abouts.append(expected.name)


JOINS = st.one_of(
    st.tuples(
        st.just("join"),
        st.sampled_from("pqr"),
        st.sampled_from(["intact", "gone", "unconfirmed", "unsure"]),
        st.integers(0, 20),
        st.booleans(),
    ),
    st.tuples(st.just("join"), st.sampled_from("pqr"), st.just("intact"), st.just(-1), st.booleans()),
    st.tuples(st.just("restart")),
    st.tuples(st.just("wait"), st.integers(1, 4)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(JOINS, max_size=25))
def test_join_decides_as_the_model_does(bus_settings: BusSettings, steps: list[tuple[str, object]]) -> None:
    both = Both(bus_settings)
    for name, *given_ in steps:
        getattr(both, name)(*given_)


SERVERS = st.sampled_from(["a", "b", "ff01"])
NAMES = st.builds(lambda server, number: f"{server}.{number}", SERVERS, st.integers(0, 12))
ANCESTORS = st.lists(st.one_of(NAMES, NAMES.map("~{}".format), st.sampled_from(["-", "~-"])), max_size=4)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(channel=st.one_of(st.none(), NAMES), name=st.one_of(st.just(""), NAMES), ancestors=ANCESTORS)
def test_a_script_and_the_rules_agree_on_any_channel(
    bus_settings: BusSettings, channel: str | None, name: str, ancestors: list[str]
) -> None:
    timeline = Timeline(name, " ".join(ancestors))
    test_a_script_treats_a_channel_as_the_rules_say(Data(bus_settings), channel, timeline, succeed(channel, timeline))
