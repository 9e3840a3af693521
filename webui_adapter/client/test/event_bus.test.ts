// What the bus makes of frames, and what it asks for.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { BusError } from "../src/protocol/errors.js";
import type { BusEvent, Gap, Position } from "../src/types.js";
import { FakeGateway } from "./fake_gateway.js";
import { flushPromises } from "./fake_clock.js";
import { golden } from "./golden.js";

function isRefusal(code: string, more: object = {}) {
  return (error: unknown) => {
    assert.ok(error instanceof BusError);
    assert.equal(error.code, code);
    for (const [member, value] of Object.entries(more)) assert.equal(error[member as keyof BusError], value);
    return true;
  };
}

/** What a promise has become, without waiting for it. */
async function outcome(promise: Promise<unknown>): Promise<string> {
  await flushPromises();
  return Promise.race([promise.then(() => "resolved", (error: unknown) => (error as BusError).code), flushPromises().then(() => "pending")]);
}

describe("events", () => {
  test("to those who listen to their type, then to those who listen to all, in order", async () => {
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

  test("the cursor is already past the event that a listener is given", async () => {
    const gateway = await new FakeGateway().connected();
    const cursors: string[] = [];
    gateway.bus.on("a.b", () => cursors.push(gateway.bus.cursor));
    gateway.newest.subscribed("user:42", 16);
    gateway.newest.event(17);
    assert.deepEqual(cursors, ["user:42=5f.17"]);
  });

  test("of one operation, of one topic", async () => {
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

  test("one that is called like the bus's own word is not taken for it", async () => {
    const gateway = await new FakeGateway().connected();
    const received: string[] = [];
    gateway.bus.on("gap", () => received.push("gap"));
    gateway.bus.on("*", (event) => received.push(`* ${event.type}`));
    gateway.newest.event(1, { type: "gap" });
    assert.deepEqual(received, ["* gap"]);
  });

  test("what is no frame is passed over", async () => {
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

describe("the gateway's words", () => {
  test("gap and position are passed on", async () => {
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

  test("an error that answers nothing is received, or at least reported", async (t) => {
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
  test("with the cursor as it stands, and what has been seen is not heard again", async () => {
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
    assert.deepEqual(received, [11, 12, 12, 13], "the gateway set the cursor back, so 12 is asked for again");
  });

  test("from the held offset, without repeating what had overtaken", async () => {
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

  test("channels that no longer fit into a cursor have a gap", async () => {
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

describe("subscribe", () => {
  const AGREED = { topics: ["collection:7:x"], how: "snapshot" };

  test("resolves with the gateway's word, and is kept over reconnects", async () => {
    const gateway = await new FakeGateway({ topics: ["collection:1:*"] }).connected();
    const agreed = gateway.bus.subscribe("collection:7:x");
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "collection:7:x", ref: 1 }]);
    assert.equal(await outcome(agreed), "pending");
    gateway.newest.subscribed("collection:7", 3, { ...AGREED, ref: 1 });
    await agreed;
    gateway.newest.close(1006);
    const second = await gateway.reconnected();
    assert.deepEqual(second.handshake, { token: undefined, cursor: "collection:7=5f.3", topics: ["collection:1:*", "collection:7:x"] });
    second.hello();
    assert.deepEqual(second.sent, []);
  });

  test("rejects with all that the gateway says, and is not asked for again", async () => {
    const gateway = await new FakeGateway().connected();
    const refusal = gateway.bus.subscribe("collection:7:x");
    gateway.newest.control("error", { ref: 1, code: "rate_limited", message: "slowly", retry_ms: 2_000, limit: 5, field: "topic" });
    await assert.rejects(refusal, isRefusal("rate_limited", { message: "slowly", retryMs: 2_000, limit: 5, field: "topic" }));
    gateway.newest.close(1006);
    assert.deepEqual((await gateway.reconnected()).handshake.topics, []);
  });

  test("before the connection: sent once it is open", async () => {
    const gateway = new FakeGateway();
    const agreed = gateway.bus.subscribe("collection:7:x");
    await gateway.open();
    assert.deepEqual(gateway.newest.handshake.topics, []);
    gateway.newest.hello();
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "collection:7:x", ref: 1 }]);
    gateway.newest.subscribed("collection:7", 3, { ...AGREED, ref: 1 });
    await agreed;
  });

  test("unanswered when the connection is lost: asked again on the next", async () => {
    const gateway = await new FakeGateway().connected();
    const agreed = gateway.bus.subscribe("collection:7:x");
    gateway.newest.close(1006);
    (await gateway.reconnected()).hello();
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "collection:7:x", ref: 1 }]);
    gateway.newest.subscribed("collection:7", 3, { ...AGREED, ref: 1 });
    await agreed;
  });

  test("from a position, which a lost connection resumes", async () => {
    const gateway = await new FakeGateway().connected();
    const agreed = gateway.bus.subscribe("collection:7:x", { from: "5f.3" });
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "collection:7:x", from: "5f.3", ref: 1 }]);
    assert.equal(gateway.bus.cursor, "collection:7=5f.3");
    gateway.newest.control("error", { ref: 1, code: "forbidden", message: "no" });
    await assert.rejects(agreed, isRefusal("forbidden"));
    assert.equal(gateway.bus.cursor, "");
    gateway.bus.subscribe("collection:7:x", { from: 0 }).catch(() => undefined);
    assert.deepEqual(gateway.newest.sent[1], { do: "subscribe", topic: "collection:7:x", from: "0", ref: 2 });
  });

  test("what cannot be meant does not go out", async () => {
    const gateway = await new FakeGateway().connected();
    await assert.rejects(gateway.bus.subscribe("collection:7"), isRefusal("bad_topic", { field: "topic" }));
    await assert.rejects(gateway.bus.subscribe("collection:7:x", { from: "17" }), isRefusal("bad_command", { field: "from" }));
    assert.deepEqual(gateway.newest.sent, []);
  });

  test("on a closed bus", async () => {
    const gateway = await new FakeGateway().connected();
    const open = gateway.bus.subscribe("collection:7:x");
    gateway.bus.close();
    await assert.rejects(open, isRefusal("closed"));
    await assert.rejects(gateway.bus.subscribe("collection:7:x"), isRefusal("closed"));
  });
});

describe("unsubscribe", () => {
  async function subscribed(): Promise<FakeGateway> {
    const gateway = await new FakeGateway().connected();
    const agreed = gateway.bus.subscribe("collection:7:x");
    gateway.newest.subscribed("collection:7", 3, { topics: ["collection:7:x"], ref: 1 });
    await agreed;
    return gateway;
  }

  test("is not asked for again, and its channel has no place any more", async () => {
    const gateway = await subscribed();
    const agreed = gateway.bus.unsubscribe("collection:7:x");
    assert.deepEqual(gateway.newest.sent[1], { do: "unsubscribe", topic: "collection:7:x", ref: 2 });
    gateway.newest.control("ok", { ref: 2 });
    await agreed;
    assert.equal(gateway.bus.cursor, "");
    gateway.newest.close(1006);
    assert.deepEqual((await gateway.reconnected()).handshake, { token: undefined, cursor: "", topics: [] });
  });

  test("a channel that another pattern needs keeps its place", async () => {
    const gateway = await subscribed();
    const another = gateway.bus.subscribe("collection:7:y");
    gateway.newest.subscribed("collection:7", 5, { topics: ["collection:7:x", "collection:7:y"], ref: 2 });
    await another;
    const agreed = gateway.bus.unsubscribe("collection:7:x");
    gateway.newest.control("ok", { ref: 3 });
    await agreed;
    assert.equal(gateway.bus.cursor, "collection:7=5f.5");
  });

  test("unanswered when the connection is lost: done, as the next does not ask for it", async () => {
    const gateway = await subscribed();
    const agreed = gateway.bus.unsubscribe("collection:7:x");
    gateway.newest.close(1006);
    await agreed;
    assert.deepEqual((await gateway.reconnected()).handshake.topics, []);
  });

  test("without a connection: done, and what was about to be asked is cancelled", async () => {
    const gateway = new FakeGateway();
    const open = gateway.bus.subscribe("collection:7:x");
    const other = gateway.bus.subscribe("collection:7:y");
    await gateway.bus.unsubscribe("collection:7:x");
    await assert.rejects(open, isRefusal("cancelled"));
    assert.equal(await outcome(other), "pending");
  });

  test("what every session starts with is declined in every session", async () => {
    const gateway = await new FakeGateway().connected();
    const agreed = gateway.bus.unsubscribe("system:*");
    gateway.newest.control("ok", { ref: 1 });
    await agreed;
    gateway.newest.close(1006);
    (await gateway.reconnected()).hello();
    assert.deepEqual(gateway.newest.sent, [{ do: "unsubscribe", topic: "system:*" }]);
    gateway.bus.subscribe("system:*").catch(() => undefined);
    gateway.newest.close(1006);
    (await gateway.reconnected()).hello();
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "system:*", ref: 2 }]);
  });
});

test("two patterns of a channel, answered at once", async () => {
  const gateway = await new FakeGateway().connected();
  const both = [gateway.bus.subscribe("collection:7:x"), gateway.bus.subscribe("collection:7:y")];
  gateway.newest.subscribed("collection:7", 3, { topics: ["collection:7:x", "collection:7:y"], ref: 1 });
  await Promise.all(both);
});

describe("over SSE", () => {
  test("patterns not yet agreed on travel in the query", async () => {
    const gateway = new FakeGateway({ transport: "sse" });
    const x = gateway.bus.subscribe("collection:7:x");
    const y = gateway.bus.subscribe("collection:8:y");
    await gateway.open();
    assert.deepEqual(gateway.newest.handshake.topics, ["collection:7:x", "collection:8:y"]);
    gateway.newest.hello();
    assert.deepEqual(gateway.newest.sent, []);
    gateway.newest.subscribed("collection:7", 3, { topics: ["collection:7:x"] });
    await x;
    assert.equal(await outcome(y), "pending");
    gateway.newest.control("error", { code: "forbidden", message: "not yours", topic: "collection:8:y" });
    await assert.rejects(y, isRefusal("forbidden"));
  });

  test("an instance that does not hold the session: a new stream asks for it", async () => {
    const gateway = await new FakeGateway({ transport: "sse" }).connected();
    const agreed = gateway.bus.subscribe("collection:7:x");
    assert.equal(gateway.newest.sent.length, 1);
    gateway.newest.close(1006, "command: HTTP 404");
    const second = await gateway.reconnected();
    assert.deepEqual(second.handshake.topics, ["collection:7:x"]);
    second.hello();
    second.subscribed("collection:7", 3, { topics: ["collection:7:x"] });
    await agreed;
  });

  test("a refusal comes as answer to the POST and in the stream: one rejection, no error", async (t) => {
    const reported = t.mock.method(console, "error", () => undefined);
    const gateway = await new FakeGateway({ transport: "sse" }).connected();
    const refusal = gateway.bus.subscribe("collection:7:x");
    for (let time = 0; time < 2; time++) gateway.newest.control("error", { ref: 1, code: "forbidden", message: "no" });
    await assert.rejects(refusal, isRefusal("forbidden"));
    assert.equal(reported.mock.callCount(), 0);
  });

  test("asked for while the stream opens: sent as a command", async () => {
    const gateway = await new FakeGateway({ transport: "sse" }).open();
    gateway.bus.subscribe("collection:7:x").catch(() => undefined);
    gateway.newest.hello();
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "collection:7:x", ref: 1 }]);
  });
});

test("the commands are the golden ones", async () => {
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
