"""An application with a mounted gateway, for ``uvicorn tests.webui_adapter.transports.site_app:app``."""

from __future__ import annotations

from fastapi import FastAPI

from eventbus import Bus
from eventbus.backends.memory.adapters import MemoryBroker
from tests.webui_adapter.events import Note
from tests.webui_adapter.gateways import SECRET
from webui_adapter import GatewaySettings, gateway_router

__all__ = ["app", "outer"]

broker = MemoryBroker()
bus = Bus(broker=broker)
settings = GatewaySettings(jwt_secret=SECRET, drain_spread=0.3, shutdown_grace=0.5)


def make_app() -> FastAPI:
    application = FastAPI()
    application.include_router(gateway_router(settings, broker=broker))

    @application.post("/emit/{user}/{n}")
    async def emit(user: str, n: int) -> None:
        bus.emit(user, "op", Note(n=n))

    return application


app = make_app()
outer = FastAPI()
outer.mount("/sub", make_app())
