"""Bounds per address: what one address does never counts for another one."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.webui_adapter.parts import settings
from webui_adapter.access.address_limits import AddressExcess, AddressLimits
from webui_adapter.errors import NotConfigured
from webui_adapter.settings import GatewaySettings, read_settings


def limits(connections: int = 1_000, rate: float = 10, burst: int = 20, tracked: int = 100) -> AddressLimits:
    return AddressLimits(
        settings(
            max_connections_per_address=connections,
            address_open_rate=rate,
            address_open_burst=burst,
            tracked_addresses=tracked,
            trusted_proxies=("127.0.0.1",),
        )
    )


def test_an_address_has_a_number_of_connections() -> None:
    own = limits(connections=2)
    assert own.admit("a", 0.0) is None
    assert own.admit("a", 0.0) is None
    assert own.admit("a", 0.0) == AddressExcess("address_connections", 2, 1.0)
    assert own.admit("b", 0.0) is None
    own.release("a")
    assert own.admit("a", 0.0) is None


def test_an_address_opens_a_burst_and_then_its_rate() -> None:
    own = limits(rate=10, burst=20)
    assert [own.admit("a", 0.0) for _ in range(20)] == [None] * 20
    assert own.admit("a", 0.0) == AddressExcess("address_rate", 10, 0.1)
    assert own.admit("a", 0.05) == AddressExcess("address_rate", 10, 0.05)
    assert own.admit("a", 0.1) is None


def test_a_client_without_an_address_has_no_bound() -> None:
    own = limits(connections=1, burst=1)
    assert [own.admit("", 0.0) for _ in range(3)] == [None] * 3
    own.release("")
    assert len(own) == 0


def test_connections_without_a_session_have_the_same_number() -> None:
    own = limits(connections=2)
    assert [own.connected("192.0.2.1") for _ in range(3)] == ["192.0.2.1", "192.0.2.1", None]
    assert [own.connected("127.0.0.1") for _ in range(3)] == ["", "", ""], "a proxy has those of all its clients"
    assert own.connected("2001:db8::1") == own.connected("2001:db8::2")
    assert own.connected("2001:db8::3") is None
    own.disconnected("192.0.2.1")
    assert own.connected("192.0.2.1") == "192.0.2.1"


class Model(RuleBasedStateMachine):
    """Any order of opening and closing, over time."""

    CONNECTIONS, RATE, BURST, TRACKED = 3, 2.0, 5, 4

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.own = limits(self.CONNECTIONS, self.RATE, self.BURST, self.TRACKED)
        self.open: Counter[str] = Counter()
        self.recent: deque[str] = deque(maxlen=self.TRACKED)
        self.tokens: dict[str, float] = {}

    @rule(client=st.sampled_from("abcdefgh"))
    def admit(self, client: str) -> None:
        if client not in self.tokens:
            if len(self.recent) == self.TRACKED:
                del self.tokens[self.recent[0]]
            self.tokens[client] = float(self.BURST)
        else:
            self.recent.remove(client)
        self.recent.append(client)
        excess = self.own.admit(client, self.now)
        if self.tokens[client] < 1:
            assert excess is not None
            assert excess.reason == "address_rate"
            return
        self.tokens[client] -= 1
        if self.open[client] == self.CONNECTIONS:
            assert excess is not None
            assert excess.reason == "address_connections"
        else:
            assert excess is None
            self.open[client] += 1

    @precondition(lambda self: self.open.total())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(sorted(+self.open)))
        self.own.release(client)
        self.open[client] -= 1

    @rule(half_seconds=st.integers(1, 6))
    def wait(self, half_seconds: int) -> None:
        self.now += half_seconds / 2
        self.tokens = {
            client: min(float(self.BURST), tokens + half_seconds / 2 * self.RATE)
            for client, tokens in self.tokens.items()
        }

    @invariant()
    def the_memory_is_bounded(self) -> None:
        assert len(self.own) <= self.TRACKED + len(+self.open)


TestModel = Model.TestCase


@given(st.lists(st.text(min_size=1), max_size=300))
def test_addresses_that_have_gone_use_a_bounded_memory(clients: list[str]) -> None:
    own = limits(tracked=10)
    for client in clients:
        if own.admit(client, 0.0) is None:
            own.release(client)
    assert len(own) <= 10


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.0/33", "10.0.0.1:80"])
def test_a_proxy_that_is_no_address_is_refused_at_the_start(proxy: str) -> None:
    with pytest.raises(NotConfigured, match=r"^WEBUI_TRUSTED_PROXIES: .* is no address: write addresses or networks"):
        read_settings(GatewaySettings, jwt_secret="x" * 32, trusted_proxies=proxy)


def test_proxies_are_a_list_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBUI_TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8")
    assert read_settings(GatewaySettings, jwt_secret="x" * 32).trusted_proxies == ("10.0.0.0/8", "fd00::/8")
    monkeypatch.setenv("WEBUI_TRUSTED_PROXIES", "")
    assert read_settings(GatewaySettings, jwt_secret="x" * 32).trusted_proxies == ()
