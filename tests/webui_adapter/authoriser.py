"""An application's own authoriser, as ``WEBUI_AUTHORISER`` names it: asynchronous, and able to fail."""

from __future__ import annotations

import asyncio

from webui_adapter import Principal


async def may_read(principal: Principal, collection: str) -> bool:
    """Yes for the collections of the claim ``member_of``, after a moment; a collection called ``broken`` raises."""
    await asyncio.sleep(0.05 if collection.startswith("slow") else 0)
    if collection == "broken":
        raise LookupError(collection)
    member_of = principal.claims.get("member_of")
    return isinstance(member_of, list) and collection in member_of
