"""Each check of a server on facts, without a server; the real ones are in ``test_examination.py``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.doctor import server_checks
from eventbus.doctor.findings import Finding, Status, run_checks
from eventbus.doctor.server_checks import SERVER_CHECKS
from eventbus.doctor.server_facts import ServerFacts
from webui_adapter.doctor import GATEWAY_CHECKS, GatewayFacts

GOOD = ServerFacts(
    info={
        "redis_version": "7.2.4",
        "valkey_version": "8.1.0",
        "maxmemory_policy": "noeviction",
        "evicted_keys": "0",
        "maxmemory": "1000",
        "used_memory": "100",
        "aof_enabled": "1",
        "role": "master",
        "connected_slaves": "1",
    },
    user="eventbus-gateway",
    commands="-@all +evalsha +get",
    keys="~eb:*",
    anonymous=False,
    tls=True,
    clock_ms=3.0,
    clock_error_ms=1.0,
    round_trip=0.001,
    formats=(2, 2),
    own_format=2,
)
BAD: dict[str, tuple[ServerFacts, Status]] = {
    "old redis": (replace(GOOD, info={**GOOD.info, "valkey_version": "7.0.9"}), Status.ERROR),
    "eviction": (replace(GOOD, info={**GOOD.info, "maxmemory_policy": "allkeys-lru"}), Status.ERROR),
    "evicted": (replace(GOOD, info={**GOOD.info, "evicted_keys": "7"}), Status.WARNING),
    "no maxmemory": (replace(GOOD, info={**GOOD.info, "maxmemory": "0"}), Status.WARNING),
    "nearly full": (replace(GOOD, info={**GOOD.info, "used_memory": "800"}), Status.WARNING),
    "full": (replace(GOOD, info={**GOOD.info, "used_memory": "960"}), Status.ERROR),
    "no persistence": (replace(GOOD, info={**GOOD.info, "aof_enabled": "0"}), Status.WARNING),
    "cannot save": (replace(GOOD, info={**GOOD.info, "rdb_last_bgsave_status": "err"}), Status.ERROR),
    "replica": (replace(GOOD, info={**GOOD.info, "role": "slave"}), Status.ERROR),
    "no password": (replace(GOOD, anonymous=True), Status.ERROR),
    "default user": (replace(GOOD, user="default"), Status.WARNING),
    "all commands": (replace(GOOD, commands="+@all"), Status.WARNING),
    "flushall": (replace(GOOD, commands="-@all +flushall"), Status.WARNING),
    "all keys": (replace(GOOD, keys="~*"), Status.WARNING),
    "a missing right": (replace(GOOD, missing=("evalsha",)), Status.ERROR),
    "not encrypted": (replace(GOOD, tls=False), Status.WARNING),
    "not verified": (replace(GOOD, verified=False), Status.WARNING),
    "clock": (replace(GOOD, clock_ms=-2_000.0), Status.WARNING),
    "wrong clock": (replace(GOOD, clock_ms=60_000.0), Status.ERROR),
    "no round trip": (replace(GOOD, round_trip=None), Status.ERROR),
    "newer gateway": (replace(GOOD, formats=(2, 3)), Status.ERROR),
    "older gateway": (replace(GOOD, formats=(1, 2)), Status.WARNING),
    "no gateway": (replace(GOOD, formats=()), Status.UNKNOWN),
    "protected mode off": (replace(GOOD, anonymous=True, config={"protected-mode": "no"}), Status.ERROR),
}


def notable(facts: ServerFacts) -> list[Finding]:
    return [finding for finding in run_checks(SERVER_CHECKS, facts) if finding.status is not Status.OK]


def test_a_good_server_has_nothing_to_do() -> None:
    assert notable(GOOD) == []


@pytest.mark.parametrize("name", BAD)
def test_each_fault_is_found_and_says_what_to_do(name: str) -> None:
    facts, status = BAD[name]
    found = notable(facts)
    assert max(found, key=lambda finding: list(Status).index(finding.status)).status is status
    assert all(finding.advice for finding in found)


def test_a_loopback_server_without_a_password_is_a_warning() -> None:
    facts = replace(GOOD, anonymous=True, local=True, tls=False)
    assert {finding.check: finding.status for finding in notable(facts)} == {
        "password": Status.WARNING,
        "protected-mode": Status.UNKNOWN,
    }


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert notable(replace(GOOD, clock_ms=1_500.0, clock_error_ms=900.0)) == []


def test_snapshots_are_persistence_too() -> None:
    info = {**GOOD.info, "aof_enabled": "0"}
    assert notable(replace(GOOD, info=info, config={"save": "3600 1"})) == []
    assert notable(replace(GOOD, info={**info, "rdb_saves": "4"})) == []
    assert notable(replace(GOOD, info=info, config={"save": ""}))[0].check == "persistence"


def test_without_rights_nothing_is_claimed() -> None:
    found = {finding.check: finding.status for finding in run_checks(SERVER_CHECKS, ServerFacts())}
    silent = {name for name, status in found.items() if status is Status.OK}
    assert silent == {"rights"}
    assert found["round-trip"] is Status.ERROR


@given(st.builds(ServerFacts, info=st.dictionaries(st.sampled_from(["redis_version", "valkey_version"]), st.text())))
def test_a_check_never_raises(facts: ServerFacts) -> None:
    assert len(run_checks(SERVER_CHECKS, facts)) == len(SERVER_CHECKS)


def test_names_are_unique_and_documented() -> None:
    names = [finding.check for finding in run_checks(SERVER_CHECKS, ServerFacts())]
    names += [finding.check for finding in run_checks(GATEWAY_CHECKS, GatewayFacts(None))]
    assert len(names) == len(set(names))
    page = (Path(server_checks.__file__).parents[2] / "docs/how-to/harden-a-deployment.md").read_text()
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert rows == {"connection", "gateway", *names}
