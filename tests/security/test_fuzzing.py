"""The parsers of what strangers send: kept findings, random inputs, and some seconds of the fuzzer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.security.fuzz.__main__ import SEEDS
from tests.security.fuzz.targets import TARGETS, frames, parsed
from tests.webui_adapter.protocol.test_websocket_parser import CLOSE, PING, PONG, TEXT, frame

KEPT = sorted(path for path in SEEDS.rglob("*") if path.is_file())
SECONDS = 3


@pytest.mark.parametrize("path", KEPT, ids=lambda path: str(path.relative_to(SEEDS)))
def test_a_kept_input(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_each_target_has_seeds() -> None:
    assert {path.parent.name for path in KEPT} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=200)
@given(data=st.data())
def test_random_inputs(name: str, data: st.DataObject) -> None:
    """Pieces of the seeds, in any order, with some bytes between them."""
    seeds = [path.read_bytes() for path in KEPT if path.parent.name == name]
    pieces = st.sampled_from(seeds).flatmap(
        lambda seed: st.tuples(st.integers(0, len(seed)), st.integers(0, len(seed))).map(
            lambda cut: seed[min(cut) : max(cut)]
        )
    )
    parts = data.draw(st.lists(pieces | st.binary(max_size=12), max_size=6))
    TARGETS[name](b"".join(parts))


@given(
    st.lists(
        st.builds(
            frame,
            st.sampled_from([0, TEXT, 2, CLOSE, PING, PONG, 3]),
            st.binary(max_size=300),
            final=st.booleans(),
        ),
        max_size=8,
    ).map(b"".join)
)
def test_frames_of_any_order(data: bytes) -> None:
    frames(data)
    assert len(parsed([data])) <= len(data) // 6 + 1


@pytest.mark.parametrize("name", TARGETS)
def test_the_fuzzer_finds_nothing(name: str) -> None:
    """A bounded time; ``make fuzz`` runs for hours."""
    command = [sys.executable, "-m", "tests.security.fuzz", name, "--here", f"--seconds={SECONDS}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    assert "number_of_executed_units" in done.stderr
