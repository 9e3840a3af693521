"""``python -m webui_adapter``: the stand-alone gateway, set up by the variables ``WEBUI_…`` and ``EVENTBUS_…``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from webui_adapter.app import serve
from webui_adapter.errors import NotConfigured
from webui_adapter.settings import GatewaySettings, read_settings

cli = typer.Typer(add_completion=False)


@cli.command()
def run(
    host: Annotated[str | None, typer.Option(help="Address to listen on (WEBUI_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (WEBUI_PORT).")] = None,
) -> None:
    """Serve events to browsers until interrupted."""
    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        serve(read_settings(GatewaySettings, **given))
    except (NotConfigured, OSError) as error:
        typer.echo(f"gateway: {error}", err=True)
        sys.exit(2)


def main() -> None:
    """Run the command line."""
    cli()


if __name__ == "__main__":
    main()
