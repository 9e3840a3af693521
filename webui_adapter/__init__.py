"""The browser side of the event bus: WebSocket and SSE gateway, stand-alone or as a FastAPI router."""

from webui_adapter.access.authenticator import Authenticate, Connection
from webui_adapter.access.authoriser import Authoriser
from webui_adapter.access.principal import Principal
from webui_adapter.app import create_app
from webui_adapter.http.router import gateway_router
from webui_adapter.settings import GatewaySettings

__all__ = ["Authenticate", "Authoriser", "Connection", "GatewaySettings", "Principal", "create_app", "gateway_router"]
