"""The `eventbus` command: `eventbus schema` and the groups of sub-commands."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

import eventbus.operations.events  # noqa: F401 - declares the events of an operation's life, which are part of every contract
from eventbus.cli import audit, dead_letters, instances, sessions
from eventbus.cli.acl import acl
from eventbus.cli.client import call, fail
from eventbus.cli.doctor import doctor
from eventbus.cli.fork import ChannelForks
from eventbus.errors import EventBusError
from eventbus.events.registry import registry
from eventbus.events.schema import asyncapi, json_schema, typescript

cli = typer.Typer(add_completion=False, help="Typed events from Celery tasks to browsers.")


class Form(StrEnum):
    """Formats of ``schema``."""

    JSON_SCHEMA = "json-schema"
    ASYNCAPI = "asyncapi"
    TYPESCRIPT = "typescript"


cli.add_typer(dead_letters.cli, name="dead-letters")
cli.add_typer(instances.cli, name="instances")
cli.add_typer(sessions.sessions, name="sessions")
cli.add_typer(sessions.tokens, name="tokens")
cli.add_typer(audit.cli, name="audit")
cli.command(help="Print an ACL file: the users of Redis that the programs need.")(acl)
cli.command(help="Check a running system: Redis, and the gateway of this environment.")(doctor)


@cli.command()
def schema(
    modules: Annotated[
        list[str] | None, typer.Argument(help="modules that declare event classes: myapp.events")
    ] = None,
    *,
    ts: Annotated[bool, typer.Option("--typescript", help="TypeScript types")] = False,
    api: Annotated[bool, typer.Option("--asyncapi", help="AsyncAPI 3 document")] = False,
    js: Annotated[bool, typer.Option("--json-schema", help="JSON Schema (the default)")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; default: stdout")] = None,
    check: Annotated[bool, typer.Option("--check", help="do not write; fail if the output file is stale")] = False,
) -> None:
    """Write the contract of the event classes in MODULES and of this library."""
    if ts + api + js > 1:
        fail("choose one of --typescript, --asyncapi, --json-schema", 2)
    form = Form.TYPESCRIPT if ts else Form.ASYNCAPI if api else Form.JSON_SCHEMA
    _import(modules or [])
    text = _render(form)
    if output is None:
        if check:
            fail("--check needs --output", 2)
        sys.stdout.write(text)
    elif check:
        if not output.is_file() or output.read_text(encoding="utf-8") != text:
            fail(f"{output} is stale; run the same command without --check to write it", 2)
    else:
        output.write_text(text, encoding="utf-8")


@cli.command()
def fork() -> None:
    """Begin a new epoch of every channel, after a backup of Redis was restored. Pages receive bus.gap."""
    number = call(ChannelForks, ChannelForks.fork_all)
    typer.echo(f"forked {number} channels")
    if not number:
        raise typer.Exit(1)


def _import(modules: list[str]) -> None:
    # As `python -m` of a module in the current folder would find it; the `eventbus` script would not.
    sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        try:
            import_module(module)
        except (ImportError, EventBusError) as error:
            fail(f"{module} cannot be imported: {error}", 2)


def _render(form: Form) -> str:
    classes = list(registry)
    match form:
        case Form.TYPESCRIPT:
            return typescript(classes)
        case Form.ASYNCAPI:
            return json.dumps(asyncapi(classes), indent=2) + "\n"
        case Form.JSON_SCHEMA:
            return json.dumps(json_schema(classes), indent=2) + "\n"


def main() -> None:
    """Entry point."""
    cli()
