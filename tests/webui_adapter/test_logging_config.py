"""Logs without tokens."""

from __future__ import annotations

import pytest

from webui_adapter.logging_config import redact


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2VjcmV0",
        "GET /ws?token=c2VjcmV0&x=1",
        "GET /ws?access_token=c2VjcmV0",
        "offered eventbus.v1, access_token.c2VjcmV0",
        "authorization: Bearer c2VjcmV0",
        "authorization: bearer c2VjcmV0",
        "{'TOKEN=c2VjcmV0'}",
    ],
)
def test_tokens_do_not_reach_the_log(text: str) -> None:
    assert "c2VjcmV0" not in redact(text)
    assert "[token]" in redact(text)


def test_the_rest_does() -> None:
    assert (
        redact("GET /ws?cursor=user:1=5f.1&token=abc&topic=x HTTP")
        == "GET /ws?cursor=user:1=5f.1&token=[token]&topic=x HTTP"
    )
    assert "\x7f" not in redact("a\x7fb")
