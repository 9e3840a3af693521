"""The measurement on a small load with the floor and the gateway, and its output files."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cases import QUICK, Case, Plan
from bench.contenders.registry import load
from bench.curves.plot import write_curve
from bench.curves.results import CurveResults, Row
from bench.curves.sweeps import FULL, SWEEPS
from bench.load_generator import FAULTS, build
from bench.measurement import least_disturbed, measure_contender
from bench.plot import write_plot
from bench.results import Results

compiled = pytest.mark.skipif(
    shutil.which("make") is None or shutil.which("cc") is None, reason="the load generator needs make and cc"
)

FLOOR = ("floor-plain", "few")
FEW = Case("few", "few events to all", direct=False, rate=50, window=0, floor=FLOOR)
SINGLE = Case("single", "few events to one each", direct=True, rate=100, window=0, floor=FLOOR)
TINY = Plan(
    (FEW, SINGLE), connections=10, rounds=1, warm=0.1, seconds=0.4, drain=5.0, settle=0.0, emits=0, tries=1, patience=0
)


@compiled
@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("floor-plain", TINY),
        ("ours", TINY),
        ("ours-live", replace(TINY, cases=(SINGLE,), gateways=2, collections=3, event_bytes=4_000)),
    ],
)
def test_a_measurement_has_the_due_rate_and_no_faults(name: str, plan: Plan, tmp_path: Path) -> None:
    build()
    opening, figures = measure_contender(load(name), plan, tmp_path / "log", lambda _: None)
    assert opening["open_seconds"] > 0
    assert set(figures) == {case.name for case in plan.cases}
    for found in figures.values():
        assert {found[name] for name in (*FAULTS, "undelivered")} == {0}
        assert found["rate"] > 0
        assert found["cpu_us"] > 0
        assert abs(found["event_bytes"] - plan.event_bytes) <= 10


@compiled
def test_without_loads_only_the_opening_is_measured(tmp_path: Path) -> None:
    build()
    plan = replace(TINY, cases=(), idle=0.1)
    opening, figures = measure_contender(load("ours"), plan, tmp_path / "log", lambda _: None)
    assert figures == {}
    assert {"memory_kb", "resident_mb", "open_cpu_ms", "idle_us"} <= set(opening)


def test_the_least_disturbed_try_counts_with_the_faults_of_all_tries() -> None:
    well = dict.fromkeys(FAULTS, 0.0)
    calm = {**well, "others_busy": 0.1, "cpu_us": 3.0}
    busy = {**well, "others_busy": 0.4, "cpu_us": 9.0, "missing": 2.0}
    assert least_disturbed([busy, calm]) == {**calm, "missing": 2.0}


def test_every_curve_has_points_for_each_of_its_loads() -> None:
    for sweep in SWEEPS:
        for run in sweep.runs(FULL):
            assert {case.name for case in run.plan.cases} <= set(run.points)


def _curve_results() -> CurveResults:
    results = CurveResults()
    for x in (10.0, 1_000.0):
        for cost in (1.0, 3.0, 2.0):
            results.rows["gateways"].append(Row("a <line>", x, {"cpu_us": cost * x, "behind": float(x > 10)}))
    return results


def test_curve_results_are_medians_with_their_spread_and_can_be_read_from_the_file(tmp_path: Path) -> None:
    _curve_results().write(tmp_path / "curves.json")
    read = CurveResults.read(tmp_path / "curves.json")
    assert read.lines("gateways", "cpu_us")["a <line>"][10.0] == (20.0, 10.0, 30.0)
    assert read.median("gateways", "a <line>", 1_000.0, "cpu_us") == 2_000.0
    assert [read.behind("gateways", "a <line>", x) for x in (10.0, 1_000.0)] == [False, True]


def test_plots_are_xml_and_name_the_machine(tmp_path: Path) -> None:
    curves = _curve_results()
    sweep = next(sweep for sweep in SWEEPS if sweep.name == "gateways")
    write_curve(sweep, curves, tmp_path / "curve.svg")
    results = Results(replace(QUICK, cases=(FEW,)), {"ours": "ours & co"})
    results.add("ours", "few", {"cpu_us": 3.0, "rate": 100.0})
    write_plot(results, tmp_path / "plot.svg")
    for name in ("curve.svg", "plot.svg"):
        drawing = ET.parse(tmp_path / name)
        assert any(curves.machine in (text.text or "") for text in drawing.iter("{http://www.w3.org/2000/svg}text"))
