"""The supervisor: it starts the worker processes, restarts one that has ended, and ends all of them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Final

from webui_adapter.settings import GatewaySettings
from webui_adapter.workers.place import WorkerPlace, family_of, share_port
from webui_adapter.workers.restarts import RestartPolicy

__all__ = ["BACKLOG", "Supervisor", "worker_command"]

log = logging.getLogger(__name__)

BACKLOG: Final = 4096
# Exit codes of a worker whose settings are wrong, or whose application cannot start: another start fails as well.
_HOPELESS: Final = (2, 3)
# Seconds beyond the time that a worker may take to drain, until it is killed.
_KILL_AFTER: Final = 5.0


class Supervisor:
    """Runs the workers of one machine.

    Each worker has a separate socket on the same port, and the kernel spreads the connections among them
    (``SO_REUSEPORT``). A worker listens when it has started, so a connection never waits for one that restarts.

    Args:
        settings: host, port, number of workers, and the times of a shutdown.
        command: returns the command of a worker.
    """

    def __init__(self, settings: GatewaySettings, command: Callable[[WorkerPlace], list[str]]) -> None:
        self._settings = settings
        self._command = command
        self._leaving = asyncio.Event()
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._code = 0

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until no worker can start.

        Returns:
            The exit code: 0 after a signal, else that of the worker that cannot start.

        Raises:
            OSError: the port cannot be used.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            host, port = stack.enter_context(_reserve(self._settings)).getsockname()[:2]
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="eventbus-"))
            lifeline, held = os.pipe()
            stack.callback(os.close, lifeline)
            stack.callback(os.close, held)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._leave)
            count = self._settings.workers
            places = [WorkerPlace(number, count, host, port, lifeline, folder) for number in range(1, count + 1)]
            log.info("serving with %d workers on %s port %d", count, host, port)
            await asyncio.gather(*map(self._keep, places))
        return self._code

    def _leave(self) -> None:
        """End all workers. The second call ends them immediately."""
        self._leaving.set()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def _keep(self, place: WorkerPlace) -> None:
        """Keep one worker running."""
        policy = RestartPolicy()
        while not self._leaving.is_set():
            policy.started(time.monotonic())
            code = await self._run_worker(place)
            if self._leaving.is_set():
                return
            pause = policy.ended(time.monotonic())
            if code in _HOPELESS:
                log.error("worker %d cannot start: it ended with code %d; ending all workers", place.number, code)
                self._code = code
                self._leave()
                return
            log.error("worker %d ended with code %d; it starts again in %.1f s", place.number, code, pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._leaving.wait()

    async def _run_worker(self, place: WorkerPlace) -> int:
        """Run a worker until it ends, and return its exit code."""
        process = await asyncio.create_subprocess_exec(
            *self._command(place),
            pass_fds=(place.lifeline,),
            env={**os.environ, "WEBUI_INSTANCE": f"{self._name}-{place.number}"},
            start_new_session=True,  # Ctrl-C reaches the supervisor alone: it decides who ends when.
        )
        self._processes[place.number] = process
        if self._leaving.is_set():  # The signal came while the process was made.
            process.terminate()
        ended = asyncio.ensure_future(process.wait())
        leaving = asyncio.ensure_future(self._leaving.wait())
        try:
            await asyncio.wait([ended, leaving], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([ended], timeout=self._longest_drain)
            if not ended.done():
                log.error("worker %d has not ended after %.0f s; it is killed", place.number, self._longest_drain)
                process.kill()
            return await ended
        finally:
            leaving.cancel()
            del self._processes[place.number]

    @property
    def _name(self) -> str:
        return self._settings.instance or f"{socket.gethostname()}-{os.getpid()}"

    @property
    def _longest_drain(self) -> float:
        times = self._settings
        return times.drain_spread + times.shutdown_grace + times.close_timeout + _KILL_AFTER


def _reserve(settings: GatewaySettings) -> socket.socket:
    """Return a socket that holds the port and accepts nothing, so that the workers can share it."""
    family = family_of(settings.host)
    with socket.socket(family, socket.SOCK_STREAM) as only:
        # Without SO_REUSEPORT this fails if another server has the port. With it, both would share the connections.
        only.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        only.bind((settings.host, settings.port))
    reserved = socket.socket(family, socket.SOCK_STREAM)
    share_port(reserved)
    reserved.bind((settings.host, settings.port))
    return reserved


def worker_command(place: WorkerPlace) -> list[str]:
    """Return the command of a worker: this program again, with a place.

    Args:
        place: the place of the worker.
    """
    return [sys.executable, "-m", "webui_adapter", "--place", place.text]
