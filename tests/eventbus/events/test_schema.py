"""The contract that the registry yields is valid, complete, and what is on the wire."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import StrEnum

import jsonschema
import pytest
from pydantic import Field

from eventbus import Bus, BusSettings, Event
from eventbus.backends.memory.adapters import MemoryBroker, MemoryReader
from eventbus.events.schema import asyncapi, json_schema, typescript


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(Event):
    size: int


class Rich(Event, name="schema.rich", keep="latest", key="title"):
    """All sorts of members."""

    title: str
    colour: Colour = Colour.RED
    parts: list[Part] = Field([])
    scores: dict[str, float] = Field({})
    pair: tuple[int, str] = (1, "a")
    note: str | None = None


async def test_json_schema_accepts_what_is_on_the_wire_and_refuses_what_is_not():
    settings = BusSettings(redis_url="memory://")
    bus = Bus(settings, broker=MemoryBroker(settings))
    await bus.aemit("42", "9", Rich(title="a", parts=[Part(size=1)], scores={"x": 0.5}))
    (state,) = (await MemoryReader(bus.broker).read("user:42", 0)).snapshot
    bus.close()
    schema = json_schema([Rich])
    jsonschema.Draft202012Validator.check_schema(schema)
    event = json.loads(state.event)
    jsonschema.validate(event, schema)
    event["data"]["title"] = 7
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event, schema)


def test_typescript_says_the_same():
    text = typescript([Rich])
    assert '"schema.rich": Rich;' in text
    assert 'export type Colour = "red" | "blue";' in text
    for line in ("title: string;", "parts: Part[];", "scores: Record<string, number>;", "pair: [number, string];"):
        assert line in text
    assert "note: string | null;" in text
    assert "?" not in text


def test_asyncapi_has_a_message_for_each_event_with_its_policy():
    document = asyncapi([Rich])
    message = document["components"]["messages"]["Rich"]
    assert message["x-policy"]["keep"] == "latest"
    text = json.dumps(document)
    assert "#/$defs" not in text
    for reference in {part.split('"')[0] for part in text.split('"$ref": "#/')[1:]}:
        node = document
        for key in reference.split("/"):
            node = node[key]


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eventbus", "schema", *args], capture_output=True, text=True, check=False
    )


def test_the_command_writes_and_checks(tmp_path):
    target = tmp_path / "events.ts"
    assert command("--typescript", "-o", str(target)).returncode == 0
    assert '"operation.progress": OperationProgress;' in target.read_text()
    assert command("--typescript", "-o", str(target), "--check").returncode == 0
    target.write_text("// old")
    stale = command("--typescript", "-o", str(target), "--check")
    assert stale.returncode == 2
    assert "stale" in stale.stderr
    missing = command("no.such.module")
    assert (missing.returncode, "no.such.module" in missing.stderr) == (2, True)
