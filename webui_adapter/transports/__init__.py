"""Bytes in and out: WebSocket (our own and ASGI), server-sent events, uvicorn protocols."""
