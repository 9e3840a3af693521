"""Runs the contenders in Python: a module of this package as a program under uvicorn."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Literal

import uvicorn

from bench.contenders.contract import Command, Launch

__all__ = ["serve", "uvicorn_command"]


def uvicorn_command(module: str) -> Callable[[Launch], Command]:
    """Return the command for a module that calls `serve`."""

    def command(launch: Launch) -> Command:
        argv = [sys.executable, "-m", f"bench.contenders.{module}", str(launch.port)]
        return Command(argv, {"BENCH_REDIS_URL": launch.redis_url})

    return command


def serve(create_app: Callable[[str], Any], lifespan: Literal["auto", "off"] = "auto") -> None:
    """Serve the application that `create_app` returns for a Redis URL."""
    uvicorn.run(
        create_app(os.environ["BENCH_REDIS_URL"]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
        lifespan=lifespan,
    )
