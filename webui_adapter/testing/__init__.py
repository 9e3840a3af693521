"""Test kit: a gateway process, and a client that follows the rules of the protocol.

Nothing here imports pytest; the fixtures are in ``pytest_eventbus``. See docs/how-to/test-your-code.md.
"""

from webui_adapter.errors import NotReady
from webui_adapter.testing.gateway_process import GatewayProcess
from webui_adapter.testing.page import ChannelPosition, Frame, Page
from webui_adapter.testing.token import make_token
from webui_adapter.testing.websocket_client import Client, open_page

__all__ = ["ChannelPosition", "Client", "Frame", "GatewayProcess", "NotReady", "Page", "make_token", "open_page"]
