"""The protocol's rules for clients, as these tests name them."""

from webui_adapter.testing.page import Frame, Page, Track

__all__ = ["Frame", "Page", "Track"]
