"""The two protocol classes that uvicorn takes by name: ``--ws webui_adapter.uvicorn:WebSocketProtocol`` and
``--http webui_adapter.uvicorn:HttpProtocol``.
"""

from webui_adapter.transports.uvicorn_http import EventBusHttpProtocol as HttpProtocol
from webui_adapter.transports.uvicorn_websocket import EventBusWebSocketProtocol as WebSocketProtocol

__all__ = ["HttpProtocol", "WebSocketProtocol"]
