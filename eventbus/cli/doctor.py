"""``eventbus doctor``: checks a running system, and says what to do.

Exit codes: 0 no error, 1 an error (with ``--strict`` a warning too), 2 a mistake in the call or in a setting.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from eventbus.cli.client import fail
from eventbus.doctor.findings import Finding, Status
from eventbus.doctor.gathering import examine_bus
from eventbus.settings import BusSettings

__all__ = ["doctor"]

# A package that is installed adds its findings: a function `examine` without arguments.
_PARTS: Final = ("webui_adapter.doctor",)
_SIGNS: Final = {Status.OK: "ok", Status.UNKNOWN: "?", Status.WARNING: "WARN", Status.ERROR: "ERROR"}


def doctor(
    *,
    strict: Annotated[bool, typer.Option("--strict", help="fail for a warning too")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Check Redis, and the gateway of this environment.

    Args:
        strict: whether a warning is a failure.
        as_json: whether to write JSON.

    Raises:
        typer.Exit: with code 1 for an error, and 2 for a mistake in a setting.
    """
    findings = [*_bus(), *(finding for part in _PARTS for finding in _part(part))]
    for finding in findings:
        typer.echo(json.dumps(asdict(finding)) if as_json else _line(finding))
    counts = Counter(finding.status for finding in findings)
    if not as_json:
        typer.echo(
            f"{len(findings)} checks: {counts[Status.ERROR]} errors, {counts[Status.WARNING]} warnings", err=True
        )
    if counts[Status.ERROR] or (strict and counts[Status.WARNING]):
        raise typer.Exit(1)


def _bus() -> list[Finding]:
    try:
        settings = BusSettings()
        if settings.redis.kind == "memory":
            fail("EVENTBUS_REDIS_URL: there is nothing to check without a server", 2)
    except ValidationError as error:
        problem = error.errors()[0]
        fail(f"EVENTBUS_{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}", 2)
    except ValueError as error:
        fail(f"EVENTBUS_REDIS_URL: {error}", 2)
    return examine_bus(settings)


def _part(name: str) -> list[Finding]:
    if find_spec(name.partition(".")[0]) is None:
        return []
    try:
        examine: Callable[[], list[Finding]] = import_module(name).examine
    except ImportError:
        return []  # the extra [gateway] is not installed here
    return examine()


def _line(finding: Finding) -> str:
    subject = f" [{finding.subject}]" if finding.subject else ""
    advice = f"\n{'':8}{'':16}→ {finding.advice}" if finding.advice else ""
    return f"{_SIGNS[finding.status]:<8}{finding.check:<16}{finding.text}{subject}{advice}"
