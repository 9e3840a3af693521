"""Runs the fuzzer: ``python -m tests.security.fuzz [TARGET …] [--seconds N]``.

Each target has a process. Inputs that reach new code stay in ``build/fuzz``. An input that fails is written to
``tests/security/seeds``, where ``test_fuzzing.py`` tries it from then on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
SEEDS: Final = ROOT / "tests" / "security" / "seeds"
LEARNED: Final = ROOT / "build" / "fuzz"
LONGEST: Final = 8_192
# Instrumented: the parsers, and nothing that only prepares a run.
PACKAGES: Final = [
    *("eventbus.protocol", "eventbus.redis_url", "eventbus.outbox.spool_format"),
    *("webui_adapter.protocol", "webui_adapter.access", "webui_adapter.channels.validation"),
]


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris  # noqa: PLC0415 - it changes the interpreter's imports

    with atheris.instrument_imports(include=PACKAGES):
        from tests.security.fuzz.targets import TARGETS  # noqa: PLC0415

    learned = LEARNED / name
    learned.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=1024"]
    options += [f"-artifact_prefix={SEEDS / name}/", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], str(learned), str(SEEDS / name), *options], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Fuzz the targets one after the other. The exit code is 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz")
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--here", action="store_true", help="one target, in this process")
    given = parser.parse_args()
    names = given.targets or sorted(folder.name for folder in SEEDS.iterdir() if folder.is_dir())
    if given.here:
        fuzz(names[0], given.seconds)
        return 0
    failed = []
    for name in names:
        command = [sys.executable, "-m", "tests.security.fuzz", name, "--here", f"--seconds={given.seconds}"]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
        runs = next((ln.split()[-1] for ln in done.stderr.splitlines() if "number_of_executed_units" in ln), "?")
        print(f"{name:<14} {runs:>10} runs  {'failed' if done.returncode else 'ok'}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-4_000:], flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
