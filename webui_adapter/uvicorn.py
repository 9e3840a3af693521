"""The two protocol classes that uvicorn takes by name: ``--ws webui_adapter.uvicorn:WebSocketProtocol`` and
``--http webui_adapter.uvicorn:HttpProtocol``.
"""

from webui_adapter.transports.uvicorn_http import HttpProtocol
from webui_adapter.transports.uvicorn_websocket import WebSocketProtocol

__all__ = ["HttpProtocol", "WebSocketProtocol"]
