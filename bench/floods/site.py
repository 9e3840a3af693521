"""An application with a mounted gateway whose settings come from the environment."""

from __future__ import annotations

from fastapi import FastAPI

from webui_adapter import gateway_router

__all__ = ["app"]

app = FastAPI()
app.include_router(gateway_router())
