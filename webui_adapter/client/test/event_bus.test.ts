// How the bus handles frames, and which commands it sends.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { BusError } from "../src/protocol/errors.js";
import type { BusEvent, Gap, Position } from "../src/types.js";
import { FakeGateway } from "./fake_gateway.js";
import { flushPromises } from "./fake_clock.js";
import { golden } from "./golden.js";

describe("events", () => {
  test("go to the listeners of their type, then to those of *, in order", async () => {
    const gateway = new FakeGateway();
    const received: string[] = [];
    gateway.bus.on("*", (event) => received.push(`* ${event.offset}`));
    gateway.bus.on("a.b", (event) => received.push(`a.b ${event.offset}`));
    await gateway.connected();
    gateway.newest.subscribed("user:42", 0);
    gateway.newest.event(1);
    gateway.newest.event(2, { type: "c.d" });
    gateway.newest.event(2);
    gateway.newest.event(3);
    assert.deepEqual(received, ["a.b 1", "* 1", "* 2", "a.b 3", "* 3"]);
  });

  test("the cursor includes the event that a listener receives", async () => {
    const gateway = await new FakeGateway().connected();
    const cursors: string[] = [];
    gateway.bus.on("a.b", () => cursors.push(gateway.bus.cursor));
    gateway.newest.subscribed("user:42", 16);
    gateway.newest.event(17);
    assert.deepEqual(cursors, ["user:42=5f.17"]);
  });

  test("go to the listeners of an operation and of a topic", async () => {
    const gateway = await new FakeGateway().connected();
    const received: string[] = [];
    gateway.bus.op(9).on("a.b", (event) => received.push(`op ${event.offset}`));
    gateway.bus.op("9").on("*", (event) => received.push(`op* ${event.offset}`));
    const stop = gateway.bus.topic("user:42:operation:*").on("a.b", (event) => received.push(`topic ${event.offset}`));
    gateway.newest.event(1, { topic: "user:42:operation:9" });
    gateway.newest.event(2, { topic: "user:42:operation:90" });
    gateway.newest.event(3, { topic: "user:42:documents" });
    stop();
    gateway.newest.event(4, { topic: "user:42:operation:9", type: "c.d" });
    gateway.newest.event(5, { topic: "user:42:operation:8" });
    assert.deepEqual(received, ["op 1", "topic 1", "op* 1", "topic 2", "op* 4"]);
  });

  test("with the name of an event of the bus are not treated as one", async () => {
    const gateway = await new FakeGateway().connected();
    const received: string[] = [];
    gateway.bus.on("gap", () => received.push("gap"));
    gateway.bus.on("*", (event) => received.push(`* ${event.type}`));
    gateway.newest.event(1, { type: "gap" });
    assert.deepEqual(received, ["* gap"]);
  });

  test("text that is not a frame is ignored", async () => {
    const gateway = await new FakeGateway().connected();
    const received: BusEvent[] = [];
    gateway.bus.on("*", (event) => received.push(event));
    for (const text of ["", "{", "null", "[]", '{"type":"a.b"}', '{"type":"bus.surprise","data":{}}', '{"type":"bus.surprise"}']) gateway.newest.text(text);
    gateway.newest.event(1);
    assert.equal(received.length, 1);
    assert.equal(gateway.status, "open");
  });

  for (const { name, frame, parsed } of golden<{ name: string; frame: string; parsed: BusEvent }>("events")) {
    test(`golden: ${name}`, async () => {
      const gateway = await new FakeGateway().connected();
      const received: BusEvent[] = [];
      gateway.bus.on("*", (event) => received.push(event));
      gateway.newest.text(frame);
      assert.deepEqual(received, [parsed]);
    });
  }
});

describe("control events", () => {
  test("gap and position go to their listeners", async () => {
    const gateway = await new FakeGateway().connected();
    const gaps: Gap[] = [];
    const positions: Position[] = [];
    gateway.bus.on("gap", (gap) => gaps.push(gap));
    gateway.bus.on("position", (position) => positions.push(position));
    gateway.newest.control("gap", { channel: "user:42", reason: "trimmed", epoch: "5f", offset: 90 });
    gateway.newest.subscribed("user:42", 0, { how: "gap" });
    gateway.newest.control("position", { channel: "user:42", epoch: "5f", offset: 90 });
    assert.deepEqual(gaps, [{ channel: "user:42", reason: "trimmed", epoch: "5f", offset: 90 }]);
    assert.deepEqual(positions, [{ channel: "user:42", epoch: "5f", offset: 90 }]);
    assert.equal(gateway.bus.cursor, "user:42=5f.90");
  });

  test("an error without a command goes to the listeners, or is reported", async (t) => {
    const reported = t.mock.method(console, "error", () => undefined);
    const gateway = await new FakeGateway().connected();
    gateway.newest.control("error", { code: "forbidden", message: "not yours" });
    assert.equal(reported.mock.callCount(), 1);
    const errors: BusError[] = [];
    gateway.bus.on("error", (error) => errors.push(error));
    gateway.newest.control("error", { code: "too_large", message: "too large", limit: 65_536, field: "token", retry_ms: 5 });
    assert.equal(reported.mock.callCount(), 1);
    const { code, message, limit, field, retryMs } = errors[0] ?? {};
    assert.deepEqual([code, message, limit, field, retryMs], ["too_large", "too large", 65_536, "token", 5]);
  });
});

describe("resume", () => {
  test("sends the present cursor and does not deliver events again", async () => {
    const gateway = await new FakeGateway({ cursor: "user:42=5f.10" }).connected();
    const received: number[] = [];
    gateway.bus.on("a.b", (event) => received.push(event.offset));
    gateway.newest.subscribed("user:42", 10);
    gateway.newest.event(11);
    gateway.newest.event(12);
    gateway.newest.close(1006);
    const second = await gateway.reconnected();
    assert.equal(second.handshake.cursor, "user:42=5f.12");
    second.hello();
    second.subscribed("user:42", 11);
    second.event(12);
    second.event(13);
    assert.deepEqual(received, [11, 12, 12, 13], "the gateway lowered the cursor, so 12 is delivered again");
  });

  test("starts at the held offset and does not repeat events that arrived early", async () => {
    const gateway = await new FakeGateway().connected();
    const received: number[] = [];
    gateway.bus.on("a.b", (event) => received.push(event.offset));
    gateway.newest.subscribed("user:42", 10);
    gateway.newest.control("hold", { channel: "user:42", offset: 10 });
    gateway.newest.event(15);
    gateway.newest.event(11);
    gateway.newest.close(4001);
    const second = await gateway.reconnected();
    assert.equal(second.handshake.cursor, "user:42=5f.10");
    second.hello();
    second.subscribed("user:42", 10);
    for (const offset of [11, 12, 15, 16]) second.event(offset);
    second.control("release", { channel: "user:42", offset: 16 });
    assert.deepEqual(received, [15, 11, 12, 16]);
    assert.equal(gateway.bus.cursor, "user:42=5f.16");
  });

  test("channels that do not fit into the cursor have a gap", async () => {
    const gateway = await new FakeGateway().connected();
    const gaps: Gap[] = [];
    gateway.bus.on("gap", (gap) => gaps.push(gap));
    for (let id = 0; id < 300; id++) gateway.newest.subscribed(`collection:${id}`, 1_000_000);
    gateway.newest.close(1006);
    const { handshake: hail } = await gateway.reconnected();
    assert.ok(hail.cursor.length <= 4096);
    assert.ok(gaps.length > 50);
    assert.deepEqual(gaps[0], { channel: "collection:299", reason: "cursor", epoch: "5f", offset: 1_000_000 });
  });
});

test("commands equal the golden commands", async () => {
  const frames = new Map(golden<{ name: string; parsed: unknown }>("commands").map(({ name, parsed }) => [name, parsed]));
  const gateway = await new FakeGateway({ token: () => "head.payload.signature" }).connected({ expires: 1_000, ping_ms: 500 });
  await gateway.clock.advance(800);
  await flushPromises();
  assert.deepEqual(gateway.newest.sent[0], frames.get("auth, refresh"));
  await gateway.clock.advance(200);
  assert.deepEqual(gateway.newest.sent[1], frames.get("ping"));

  for (const [name, ask] of [
    ["subscribe", (bus) => bus.subscribe("collection:7:documents")],
    ["subscribe from the beginning", (bus) => bus.subscribe("collection:7:*", { from: 0 })],
    ["subscribe from a position", (bus) => bus.subscribe("collection:7:*", { from: "5f3a9c01.17" })],
    ["unsubscribe", (bus) => bus.unsubscribe("collection:7:documents")],
  ] satisfies [string, (bus: FakeGateway["bus"]) => Promise<void>][]) {
    const other = await new FakeGateway().connected();
    ask(other.bus).catch(() => undefined);
    assert.deepEqual(other.newest.sent, [frames.get(name)], name);
  }
});
