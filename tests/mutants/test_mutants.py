"""The mutation run finds a planted survivor, and sees a planted kill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eventbus.backends.redis.scripts import channel, timeline
from eventbus.backends.redis.scripts.keys import Keys
from eventbus.protocol.timeline import UNKNOWN
from eventbus.settings import BusSettings
from tests.conftest import wait_until
from tests.docs.sources import ROOT
from tests.mutants.accepted import accepted
from tests.mutants.coverage import statements
from tests.mutants.lua_changes import lua_changes, valid_lua
from tests.mutants.mutant import Mutant, named
from tests.mutants.python_changes import python_changes
from tests.mutants.run import mutants_of, sample
from tests.mutants.targets import SOURCES, TESTS, distance, expand
from tests.mutants.trace import Trace

SOURCE = """
from __future__ import annotations

LIMIT: int = 3


def fits(size: int | None, *, strict: bool = False) -> bool:
    if size is None:
        raise ValueError("1 + 1 is no size")
    return size < LIMIT and not strict
"""
LUA = """
-- if a < 1 then nothing
local n = tonumber(ARGV[1])
if n >= 10 and KEYS[2] ~= 'x == 1' then
  redis.call('DEL', KEYS[1])
  n = n + 1
end
return n
"""
TEST = """
from planted.size import fits


def test_small():
    assert fits(1) is True
"""
BLOCKING = """
from pathlib import Path

from eventbus.testing import RedisServer
from planted.size import fits


def test_blocks():
    if {condition}:
        server = RedisServer(Path.cwd())
        server.start()
        Path("{pid}").write_text(str(server.process.pid))
        server.process.wait()
"""


def changed(path: str, text: str) -> set[str]:
    make = lua_changes if path.endswith(".lua") else python_changes
    return {mutant.after for mutant in named(path, text.encode(), make(text.encode()))}


def test_python_changes() -> None:
    assert changed("size.py", SOURCE) == {
        "LIMIT: int = 2",
        "LIMIT: int = 4",
        "def fits(size: int | None, *, strict: bool = True) -> bool:",
        "if True:",
        "if False:",
        "if (size is not None):",
        "pass",
        "return None",
        "return (size < LIMIT)",
        "return not strict",
        "return (size <= LIMIT) and not strict",
        "return size < LIMIT and bool(strict)",
    }


def test_lua_changes() -> None:
    assert changed("size.lua", LUA) == {
        "if n > 10 and KEYS[2] ~= 'x == 1' then",
        "if n >= 10 or KEYS[2] ~= 'x == 1' then",
        "if n >= 10 and KEYS[2] == 'x == 1' then",
        "if n >= 11 and KEYS[2] ~= 'x == 1' then",
        "if n >= 9 and KEYS[2] ~= 'x == 1' then",
        "if true then",
        "if false then",
        "-- removed",
        "n = n - 1",
        "n = n + 2",
        "n = n + 0",
    }
    assert valid_lua(LUA.encode())
    assert not valid_lua(b"if then")


def test_the_name_of_a_mutant_does_not_depend_on_its_line() -> None:
    def mutants(text: str) -> list[Mutant]:
        return [*named("a.py", text.encode(), python_changes(text.encode()))]

    here, moved = mutants("x = 1\ny = 1\nx = 1\n"), mutants("\n\nx = 1\ny = 1\nx = 1\n")
    assert [mutant.key for mutant in here] == [mutant.key for mutant in moved]
    assert len({mutant.key for mutant in here}) == len(here) == 6


def test_each_source_has_mutants_that_compile_and_the_sample_is_stable() -> None:
    files = expand(ROOT, SOURCES, "*.py")
    assert len(files) > 40
    assert len(expand(ROOT, SOURCES, "*.lua")) > 10
    assert len(expand(ROOT, TESTS, "test_*.py")) > 40
    for path in files:
        source = (ROOT / path).read_bytes()
        mutants = mutants_of(ROOT, path)
        for mutant in sample(mutants, 8, 1):
            compile(mutant.apply(source), str(path), "exec")
        assert sample(mutants, 3, 7) == sample(mutants, 3, 7)
        assert len({mutant.key for mutant in mutants}) == len(mutants)


def test_a_call_of_a_script_is_traced_with_all_its_pieces(tmp_path: Path) -> None:
    trace = Trace(ROOT, [path.as_posix() for path in expand(ROOT, SOURCES, "*.lua")], tmp_path / "trace.json")
    settings, keys, former = BusSettings(), Keys("eb"), sys.gettrace()
    trace.start()
    assert channel.fork(keys, "user:ann", "e1").command
    assert channel.read(keys, "user:ann", None).command_on(UNKNOWN)
    assert timeline.join(settings, keys, "", "unsure", "")
    trace.pytest_sessionfinish()
    sys.settrace(former)
    traced = {Path(source).name for source in json.loads((tmp_path / "trace.json").read_text())["lines"]}
    assert traced == {"fork.lua", "read.lua", "_timeline.lua", "join.lua"}


def test_the_large_folders_of_the_lua_have_near_tests() -> None:
    tests = [path.as_posix() for path in expand(ROOT, TESTS, "test_*.py")]
    named = {"channel", "timeline", "lists", "pending", "operations"}
    for source in (path for path in expand(ROOT, SOURCES, "*.lua") if path.parent.name in named):
        assert min(distance(source.as_posix(), test) for test in tests) == 1, source


def test_a_line_belongs_to_its_statement() -> None:
    spans = statements(b"if (\n    a\n):\n    b = (\n        c,\n    )\n")
    assert [spans[line] for line in (1, 2, 5)] == [range(1, 4), range(1, 4), range(4, 7)]


def test_every_accepted_survivor_exists() -> None:
    entries = accepted(ROOT / "tests/mutants/accepted.toml")
    for file in {entry.file for entry in entries.values()}:
        known = {mutant.key for mutant in mutants_of(ROOT, Path(file))}
        missing = [key for key, entry in entries.items() if entry.file == file and key not in known]
        assert not missing, "remove these entries from accepted.toml, or review the new form of the line"


def test_an_accepted_survivor_needs_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "accepted.toml"
    file.write_text('[["a.py"]]\nbefore = "x"\nafter = "y"\nreason = " "\n')
    with pytest.raises(ValueError, match="reason"):
        accepted(file)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted/size.py").write_text("def fits(size):\n    return size <= 3\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_size.py").write_text(TEST)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\ntestpaths = ['tests']\n")
    entry = '[["planted/size.py"]]\nbefore = "return size <= 3"\nafter = "{}"\nreason = "not tested here"\n'
    reviewed = ["return size <= 2", "return None", "return size >= 3"]
    (tmp_path / "accepted.toml").write_text("\n".join(entry.format(after) for after in reviewed))
    return tmp_path


def test_a_planted_survivor_is_found_and_a_planted_kill_is_not_reported(planted: Path) -> None:
    command = [sys.executable, "-m", "tests.mutants", "planted", "--tests", "tests", "--per-file", "0"]
    command += ["--root", str(planted), "--accepted", str(planted / "accepted.toml"), "--jobs", "1"]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert first.returncode == 1, first.stderr
    report = first.stdout[first.stdout.index("file ") :]
    survivors = {line.strip() for line in report.splitlines() if line.startswith("  + ")}
    assert survivors == {"+ return (size < 3)", "+ return size <= 4"}, "return None is killed, and 2 was reviewed"
    assert "test_size.py::test_small kills it now" in report
    assert "return size >= 3: there is no such mutant" in report
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert again.stdout[again.stdout.index("file ") :] == report
    assert "survived:" not in again.stdout, "known results are not run again"


@pytest.mark.parametrize("condition", ["True", "not fits(3)"], ids=["while it traces", "while it tests a mutant"])
def test_a_killed_run_leaves_no_server_behind(planted: Path, condition: str) -> None:
    pid = planted / "pid"
    (planted / "tests/test_size.py").write_text(BLOCKING.format(condition=condition, pid=pid))
    command = [sys.executable, "-m", "tests.mutants", "planted", "--tests", "tests", "--root", str(planted)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        wait_until(lambda: pid.exists() and pid.read_text(), "the test's server", seconds=60)
        run.kill()
    wait_until(lambda: not running(int(pid.read_text())), "the server to end")


def running(pid: int) -> bool:
    """Whether a process runs; one whose parent has not yet noticed its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
