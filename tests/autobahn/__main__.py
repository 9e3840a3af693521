"""Runs Autobahn's test suite against the gateway, alone and mounted: ``make autobahn``.

The suite needs Python 2.7 and runs as a separate program. Its result is stored in ``results.json``, and the page
``docs/reference/rfc-6455.md`` has it as a table. The exit code is 1 if a case failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.autobahn.results import RESULTS, WAYS, Outcome, as_text, failed
from tests.conftest import free_port, wait_until

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "autobahn"
# Left out: 9.7 and 9.8 measure round trips; 12 and 13 are about compression, which is not negotiated.
CASES = [*(f"{part}.*" for part in (1, 2, 3, 4, 5, 6, 7, 10)), *(f"9.{part}.*" for part in range(1, 7))]
SUITE = """
import site, sys
site.addsitedir(sys.argv[1])
sys.argv = ["wstest", "-m", "fuzzingclient", "-s", sys.argv[2]]
from autobahntestsuite import wstest
wstest.run()
"""


def installed(python: str) -> Path:
    """The folder with the suite, for a Python 2.7."""
    folder = BUILD / "suite"
    if not (folder / "autobahntestsuite").is_dir():
        BUILD.mkdir(parents=True, exist_ok=True)
        requirements = HERE / "requirements.txt"
        options = ["--quiet", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(requirements)]
        subprocess.run([python, "-m", "pip", "install", *options], check=True)
    return folder


@contextlib.contextmanager
def echoing(way: str) -> Iterator[int]:
    """The port of an echoing gateway."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.autobahn.echo", way, str(port)])
    try:
        wait_until(lambda: _listens(port), f"the gateway to listen: {way}", 90)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(python: str, cases: list[str]) -> dict[str, dict[str, Outcome]]:
    suite, reports = installed(python), BUILD / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        servers = [
            {"agent": way, "url": f"ws://127.0.0.1:{stack.enter_context(echoing(way))}/eventbus/ws"} for way in WAYS
        ]
        spec = BUILD / "spec.json"
        spec.write_text(json.dumps({"outdir": str(reports), "servers": servers, "cases": cases, "exclude-cases": []}))
        subprocess.run([python, "-W", "ignore", "-c", SUITE, str(suite), str(spec)], check=True, env=dict(os.environ))
    # The suite ends with 0 whatever it found.
    index = json.loads((reports / "index.json").read_text())
    return {
        way: {case: Outcome(found["behavior"], found["behaviorClose"]) for case, found in index[way].items()}
        for way in WAYS
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description=__doc__)
    parser.add_argument("--python", default="python2.7", help="a Python 2.7 with pip; default: python2.7")
    parser.add_argument("--cases", nargs="+", default=CASES, help="cases such as 7.1.*; default: all but those above")
    given = parser.parse_args()
    found = run(given.python, given.cases)
    if given.cases == CASES:
        RESULTS.write_text(as_text(found))
    for way in WAYS:
        for case in failed(found[way]):
            print(f"{way}: case {case}: {found[way][case]}")
    return int(any(failed(found[way]) for way in WAYS))


if __name__ == "__main__":
    sys.exit(main())
