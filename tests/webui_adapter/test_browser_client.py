"""The browser's client as it is built, in node, at a real gateway: operations over both transports."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import pytest

from eventbus import Bus
from tests.webui_adapter.gateway.test_operations import started
from tests.webui_adapter.gateways import ROOT, GatewayProcess, token

SCRIPT = """
const [client, url, jwt, transport] = process.argv.slice(1);
const { connect } = await import(client);
const bus = connect({ url, token: () => jwt, transport });
const heard = [];
const stopping = new Promise((resolve) => {
  bus.op(9).on("operation.cancelling", (event) => resolve(heard.push(event.type)));
});
const listed = await bus.operations({ state: ["running", "lost"], limit: 5 });
const info = await bus.op(9).info();
const cancelled = await bus.op(9).cancel();
await stopping;
const refused = await bus.op("never").cancel().catch(({ name, code, field }) => ({ name, code, field }));
const forbidden = await bus.operations({ user: "somebody" }).catch(({ code }) => code);
const bad = await bus.operations({ limit: 1000 }).catch(({ code, field, limit }) => ({ code, field, limit }));
console.log(JSON.stringify({ listed, info, cancelled, heard, refused, forbidden, bad }));
bus.close();
"""


async def run(gateway: GatewayProcess, user: str, transport: str) -> dict[str, Any]:
    node = shutil.which("node")
    assert node is not None, "this test needs node"
    client = ROOT / "webui_adapter" / "client" / "dist" / "client.js"
    assert client.exists(), "build the client: make client"
    # WebSocket is on from node 22 on; older ones have it behind the flag.
    options = ["--experimental-websocket", "--no-warnings", "--input-type=module", "-e", SCRIPT]
    process = await asyncio.create_subprocess_exec(
        node,
        *options,
        client.as_uri(),
        f"{gateway.http}{gateway.prefix}",
        token(user),
        transport,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()
    result: dict[str, Any] = json.loads(out)
    return result


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_page_lists_looks_and_stops(gateway: GatewayProcess, bus: Bus, user: str, transport: str) -> None:
    started(bus, user, "9")
    said = await run(gateway, user, transport)
    assert [(info["id"], info["state"], info["label"]) for info in said["listed"]] == [("9", "running", "Index")]
    assert [task["name"] for task in said["info"]["tasks"]] == ["shop.read"]
    assert said["cancelled"]["state"] == "cancelling"
    assert said["heard"] == ["operation.cancelling"]
    assert said["refused"] == {"name": "BusError", "code": "unknown_operation", "field": "operation"}
    assert said["forbidden"] == "forbidden"
    assert said["bad"] == {"code": "bad_command", "field": "limit", "limit": 200}
