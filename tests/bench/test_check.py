"""`make bench-check` compares in both of its ways, and names the paths that cost more."""

from __future__ import annotations

import json

import pytest

from bench.check import HERE, STORED, compare, stored_elsewhere
from bench.hotpaths import CALIBRATION, PATHS, loops

FIGURES = {CALIBRATION: 10.0, "one path": 100.0}


@pytest.mark.parametrize("kind", ["instructions", "cpu"])
def test_every_path_has_a_stored_figure_of_each_kind(kind: str) -> None:
    assert set(json.loads(STORED.read_text())[kind]) == set(PATHS)


@pytest.mark.parametrize(("kind", "allowed"), [("instructions", 1.08), ("cpu", 1.6)])
def test_a_path_that_costs_more_than_allowed_is_named(kind: str, allowed: float) -> None:
    assert not compare(kind, FIGURES, {**FIGURES, "one path": 100.0 * (allowed - 0.01)})
    (complaint,) = compare(kind, FIGURES, {**FIGURES, "one path": 100.0 * (allowed + 0.01)})
    assert "one path" in complaint


def test_another_processor_moves_all_alike_and_is_no_complaint() -> None:
    assert not compare("cpu", FIGURES, {name: 5 * value for name, value in FIGURES.items()})


def test_a_path_without_a_figure_and_a_figure_without_a_path_are_complaints() -> None:
    assert len(compare("cpu", FIGURES, {CALIBRATION: 10.0, "another": 1.0})) == 2


def test_figures_of_another_interpreter_are_said_to_be() -> None:
    assert stored_elsewhere("cpu", {"cpu_with": HERE}) is None
    assert "CPython 3.99" in (stored_elsewhere("cpu", {"cpu_with": "CPython 3.99, x86_64"}) or "")


def test_every_loop_does_its_work_as_often_as_it_is_asked() -> None:
    for loop in loops().values():  # each asserts what has to come of it
        loop()
        loop()
