"""``python -m webui_adapter``: the stand-alone gateway, set up by the variables ``WEBUI_…`` and ``EVENTBUS_…``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from webui_adapter.app import serve, supervise
from webui_adapter.errors import NotConfigured
from webui_adapter.settings import GatewaySettings, read_settings
from webui_adapter.workers.place import WorkerPlace

cli = typer.Typer(add_completion=False)


@cli.command()
def run(
    host: Annotated[str | None, typer.Option(help="Address to listen on (WEBUI_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (WEBUI_PORT).")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port (WEBUI_WORKERS).")] = None,
    place: Annotated[str | None, typer.Option(hidden=True, help="Of a worker: set by its supervisor.")] = None,
) -> None:
    """Serve events to browsers until interrupted."""
    options = {"host": host, "port": port, "workers": workers}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    try:
        settings = read_settings(GatewaySettings, **given)
        if place is not None:
            serve(settings, WorkerPlace.parse(place))
        elif settings.workers > 1:
            sys.exit(supervise(settings))
        else:
            serve(settings)
    except (NotConfigured, OSError) as error:
        typer.echo(f"gateway: {error}", err=True)
        sys.exit(2)


def main() -> None:
    """Run the command line."""
    cli()


if __name__ == "__main__":
    main()
