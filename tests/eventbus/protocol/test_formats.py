"""Which format a process writes, and what it does not read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventbus.errors import InvalidRecord, NewerFormat
from eventbus.protocol.cursor import Position
from eventbus.protocol.formats import FORMAT, OLDEST_WRITTEN, FormatChoice, check_format, choose_format
from eventbus.protocol.history import History
from eventbus.protocol.records import parse_publication
from eventbus.protocol.recovery import Gap, resume

RECORD = b"1 n log 0 5 t user:a -\n{}"

gateways = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 9)), max_size=6)


@given(own=st.integers(OLDEST_WRITTEN, 9), announced=gateways, unannounced=st.integers(0, 3))
def test_no_process_writes_a_format_that_a_gateway_does_not_understand(
    own: int, announced: list[tuple[str, int]], unannounced: int
) -> None:
    choice = choose_format(own, announced, unannounced)
    understood = [number for _, number in announced] + [1] * unannounced
    assert choice.format == min([own, *understood])
    assert (choice.problem is None) == (choice.format == own)


def test_the_problem_names_the_gateways_and_the_remedy() -> None:
    problem = choose_format(3, [("gw-1", 2), ("gw-2", 3)], 1).problem
    assert problem is not None
    for part in ("format 3", "gw-1 (format 2)", "1 of an earlier version (format 1)", "upgrade gateways first"):
        assert part in problem
    assert "gw-2" not in problem
    assert "earlier version" not in (choose_format(3, [("gw-1", 2)]).problem or "")


def test_the_problem_names_ten_gateways_at_most() -> None:
    problem = choose_format(3, [(f"gw-{n}", 2) for n in range(12)]).problem or ""
    assert problem.count("gw-") == 10


def test_a_gateway_that_reads_no_format_of_this_version_is_named() -> None:
    choice = choose_format(3, [("ancient", 0)])
    assert choice.format == OLDEST_WRITTEN
    assert "ancient (format 0): " not in (choice.problem or "")
    assert "they cannot read 1" in (choice.problem or "")


def test_all_is_well_without_gateways_and_with_newer_ones() -> None:
    assert choose_format(2, []) == choose_format(2, [("gw", 5)]) == FormatChoice(2)


def test_a_newer_format_is_an_error_that_names_both_versions() -> None:
    check_format(FORMAT)
    with pytest.raises(NewerFormat, match=f"format {FORMAT + 1}.*up to format {FORMAT}") as caught:
        check_format(FORMAT + 1)
    assert (caught.value.found, caught.value.known) == (FORMAT + 1, FORMAT)


@pytest.mark.parametrize("first", [b"5f 0 3", b"5f 0 17", b"5f something else 4"])
def test_the_first_line_of_a_newer_publication_is_noticed(first: bytes) -> None:
    with pytest.raises(NewerFormat):
        parse_publication(first + b"\n" + RECORD)


@pytest.mark.parametrize(
    "first", [b"5f 0 1", b"5f 0 2", b"5f 0 ", b"5f 0 x", b"5f 0 4000", b"5f", b"5f 0 " + b"9" * 5000, b"\xff 17"]
)
def test_rubbish_is_not_a_newer_publication(first: bytes) -> None:
    with pytest.raises(InvalidRecord) as caught:
        parse_publication(first + b"\n" + RECORD)
    assert not isinstance(caught.value, NewerFormat)


@pytest.mark.parametrize("cursor", [None, Position("", 0), Position("5f", 3), Position("5f", 9), Position("other", 1)])
def test_a_history_of_a_newer_format_is_a_gap_for_every_reader(cursor: Position | None) -> None:
    here = Position("5f", 7)
    found = resume(cursor, History(here, 7, (), (), format=FORMAT + 1), (), 0)
    assert (found.gap, found.position, found.records) == (Gap("format"), here, ())
