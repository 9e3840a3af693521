"""The protocol's rules for clients, as these tests name them."""

from webui_adapter.testing.page import ChannelPosition, Frame, Page

__all__ = ["ChannelPosition", "Frame", "Page"]
