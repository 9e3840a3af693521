"""``python -m demo``: starts the whole demo and stops it at Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from demo.processes import Interrupted, NotRunning
from demo.stack import LEASE, Ports, Stack

__all__ = ["main"]

cli = typer.Typer(add_completion=False)
out = Console(highlight=False)

_POLL_SECONDS: Final = 0.2  # seconds between two checks of the child processes
_OPTIONAL: Final = {"gateway", "Flower"}
_WORKER: Final = "Celery worker"
# Seconds until the demo starts a killed worker again. The page reports the lost worker before that.
_RESTART_DELAY: Final = LEASE + 3


@cli.command()
def run(
    port: Annotated[int, typer.Option(help="port of the page")] = 8000,
    gateway_port: Annotated[int, typer.Option(help="port of the gateway")] = 8001,
    flower_port: Annotated[int, typer.Option(help="port of Flower")] = 5555,
    flower: Annotated[bool, typer.Option(help="start Flower")] = True,
    pace: Annotated[
        float,
        typer.Option(min=0, max=60, help="minimum duration of a document in seconds"),
    ] = 0.1,
) -> None:
    """Start Redis, a Celery worker, the gateway, the site and Flower. Ctrl-C stops all of them."""
    sys.exit(Demo(Ports(port, gateway_port, flower_port if flower else None), pace).run())


class Demo:
    """One run of the demo: its output, its commands and its exit code."""

    def __init__(self, ports: Ports, pace: float) -> None:
        redis_url = os.environ.get("EVENTBUS_REDIS_URL", "")
        self._stack = Stack(ports, redis_url=redis_url, environment={"DEMO_PACE": str(pace)})

    def run(self) -> int:
        """Start all processes, supervise them, stop them. Returns the exit code."""
        for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signal_, self._on_signal)
        try:
            with self._stack:
                out.print("Starting …", style="dim")
                self._stack.start()
                self._print_addresses()
                self._supervise()
                out.print("\nStopping …", style="dim")
        except Interrupted:
            pass
        except NotRunning as error:
            _print_error(error)
            return 1
        return 0

    def _on_signal(self, *_: object) -> None:
        # The second signal kills the processes.
        if self._stack.stop.is_set():
            self._stack.kill_all()
        self._stack.stop.set()

    def _print_addresses(self) -> None:
        stack, ports = self._stack, self._stack.ports
        table = Table(box=None, show_header=False, padding=(0, 2))
        table.add_row("[bold]The page[/]", f"[bold cyan]{stack.url}[/]")
        table.add_row("Gateway", f"http://127.0.0.1:{ports.gateway}/eventbus  (/readyz, /metrics)")
        if ports.flower is not None:
            table.add_row("Flower", f"http://127.0.0.1:{ports.flower}/")
        table.add_row("Redis", escape(stack.redis_shown))
        table.add_row("Logs", escape(str(stack.directory)))
        out.print(table)
        out.print("\n[bold]g[/] and Enter stop the gateway, and start it again.  [bold]Ctrl-C[/] stops the demo.\n")

    def _supervise(self) -> None:
        """Supervise the processes until the user stops the demo or a required process ends."""
        ended = set[str]()
        restart_at = float("inf")
        listening = True
        while not self._stack.stop.is_set():
            for name, child in self._stack.children.items():
                if not child.ended:
                    ended.discard(name)
                elif name not in ended:
                    ended.add(name)
                    self._on_ended(name)
                    restart_at = time.monotonic() + _RESTART_DELAY if name == _WORKER else restart_at
            if time.monotonic() >= restart_at:
                restart_at = float("inf")
                self._stack.start_worker()
                out.print("The Celery worker runs again.", style="green")
            if listening:
                listening = self._read_command()
            else:
                self._stack.stop.wait(_POLL_SECONDS)

    def _on_ended(self, name: str) -> None:
        child = self._stack.children[name]
        killed = name == _WORKER and child.killed
        if name not in _OPTIONAL and not killed:
            raise NotRunning(f"the {name} {child.ended}", child.last_lines())
        hint = "; press g and Enter to start it again" if name == "gateway" else ""
        if killed:
            hint = f"; the demo starts it again in {_RESTART_DELAY:.0f} s"
        out.print(f"The {name} {child.ended}{hint}.", style="yellow")

    def _read_command(self) -> bool:
        """Wait shortly for a line from the terminal. Returns False when the input has ended."""
        try:
            readable, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
            # A background job that reads from its terminal is stopped.
            if not readable or (sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp()):
                return True
            typed = os.read(sys.stdin.fileno(), 1024)
        except (OSError, ValueError):
            return False
        if typed.strip().lower() == b"g":
            self._toggle_gateway()
        return bool(typed)

    def _toggle_gateway(self) -> None:
        if self._stack.children["gateway"].ended:
            self._stack.start_gateway()
            out.print("The gateway runs again.", style="green")
        else:
            self._stack.stop_gateway()


def _print_error(error: NotRunning) -> None:
    console = Console(stderr=True, highlight=False)
    console.print(f"demo: {escape(str(error))}", style="bold red", soft_wrap=True)
    for line in error.log:
        console.print(f"  {escape(line)}", style="dim", soft_wrap=True)


def main() -> None:
    """Entry point."""
    cli()


if __name__ == "__main__":
    main()
