"""The protocol classes for uvicorn's options ``--ws`` and ``--http``.

``uvicorn --ws webui_adapter.uvicorn:WebSocketProtocol --http webui_adapter.uvicorn:HttpProtocol …``
"""

from webui_adapter.transports.uvicorn_http import HttpProtocol
from webui_adapter.transports.uvicorn_websocket import WebSocketProtocol

__all__ = ["HttpProtocol", "WebSocketProtocol"]
