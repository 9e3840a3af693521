"""The check of uvicorn's private parts: a version that lacks one is refused with its number."""

from __future__ import annotations

import pytest
import uvicorn

from webui_adapter.errors import NotConfigured
from webui_adapter.transports.uvicorn_version import check_parts


class Protocol:
    def __init__(self) -> None:
        self.conn = None

    def handle_connect(self) -> None: ...


def test_a_class_with_all_parts_is_accepted() -> None:
    check_parts(Protocol, ("conn",), ("handle_connect",))


def test_missing_parts_are_named_with_the_version_and_the_way_out() -> None:
    with pytest.raises(NotConfigured) as refused:
        check_parts(Protocol, ("conn", "queue"), ("handle_connect", "handle_pong"))
    message = str(refused.value)
    assert message.startswith(f"cannot use uvicorn {uvicorn.__version__}: its Protocol has no queue, handle_pong. ")
    assert "Install uvicorn" in message
