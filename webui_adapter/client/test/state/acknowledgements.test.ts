// Acknowledged events, and local events without an offset.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FakeGateway } from "../fake_gateway.js";
import { flushPromises } from "../fake_clock.js";

/** The ids of each `ack` command on the newest connection. */
function acknowledged(gateway: FakeGateway): string[][] {
  return gateway.newest.sent.flatMap((command) => (command.do === "ack" ? [[...command.ids]] : []));
}

async function replyToLast(gateway: FakeGateway): Promise<void> {
  const { ref } = gateway.newest.sent.at(-1) ?? {};
  gateway.newest.control("ok", { ref, acked: 1 });
  await flushPromises();
}

describe("an event with ack", () => {
  test("is acknowledged after its listeners have returned, in one command with others", async () => {
    const gateway = await new FakeGateway().connected();
    const received: number[] = [];
    gateway.bus.on("a.b", ({ offset }) => received.push(offset));
    gateway.newest.subscribed("user:42", 0);
    gateway.newest.event(1, { ack: true });
    gateway.newest.event(2, { ack: true });
    assert.deepEqual([received, acknowledged(gateway)], [[1, 2], []]);
    await gateway.clock.advance(50);
    assert.deepEqual(acknowledged(gateway), [["id-1", "id-2"]]);
    await replyToLast(gateway);
    await gateway.clock.advance(5_000);
    assert.equal(acknowledged(gateway).length, 1);
  });

  test("is acknowledged after the promises of its listeners have resolved", async () => {
    const gateway = await new FakeGateway().connected();
    let done: () => void = () => undefined;
    gateway.bus.on("a.b", () => new Promise<void>((resolve) => (done = resolve)));
    gateway.newest.event(1, { ack: true });
    gateway.newest.event(1, { ack: true });
    await gateway.clock.advance(1000);
    assert.deepEqual(acknowledged(gateway), []);
    done();
    await gateway.clock.advance(50);
    assert.deepEqual(acknowledged(gateway), [["id-1"]]);
  });

  test("is delivered again after a listener failed", async (t) => {
    const reported = t.mock.method(console, "error", () => undefined);
    const gateway = await new FakeGateway().connected();
    let calls = 0;
    gateway.bus.on("a.b", () => {
      if (++calls === 1) throw new Error("poison");
      return calls === 2 ? Promise.reject(new Error("still poison")) : undefined;
    });
    gateway.newest.subscribed("user:42", 0);
    for (const call of [1, 2]) {
      gateway.newest.event(1, { ack: true });
      await gateway.clock.advance(50);
      assert.deepEqual([calls, acknowledged(gateway)], [call, []]);
    }
    gateway.newest.event(1, { ack: true });
    await gateway.clock.advance(50);
    assert.deepEqual([calls, acknowledged(gateway)], [3, [["id-1"]]]);
    assert.equal(reported.mock.callCount(), 2);
  });

  test("that arrives again after success is acknowledged again and not delivered", async () => {
    const gateway = await new FakeGateway().connected();
    let calls = 0;
    gateway.bus.on("a.b", () => ++calls);
    gateway.newest.subscribed("user:42", 0);
    gateway.newest.event(5, { ack: true });
    await gateway.clock.advance(50);
    await replyToLast(gateway);
    gateway.newest.event(5, { ack: true });
    await gateway.clock.advance(50);
    assert.equal(calls, 1);
    assert.deepEqual(acknowledged(gateway), [["id-5"], ["id-5"]]);
    assert.equal(gateway.bus.cursor, "user:42=5f.5");
  });

  test("without a listener is not acknowledged", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.op(8).on("a.b", () => assert.fail("the event is of another operation"));
    gateway.newest.subscribed("user:42", 0);
    gateway.newest.event(1, { ack: true });
    await gateway.clock.advance(50);
    assert.deepEqual(acknowledged(gateway), []);
    let calls = 0;
    gateway.bus.on("*", () => ++calls);
    gateway.newest.event(1, { ack: true });
    await gateway.clock.advance(50);
    assert.deepEqual([calls, acknowledged(gateway)], [1, [["id-1"]]]);
  });

  test("below the initial cursor is not delivered, except in another epoch", async () => {
    const gateway = await new FakeGateway({ cursor: "user:42=5f.10" }).connected();
    let calls = 0;
    gateway.bus.on("a.b", () => ++calls);
    gateway.newest.subscribed("user:42", 10);
    gateway.newest.event(9, { ack: true });
    await gateway.clock.advance(50);
    assert.deepEqual([calls, acknowledged(gateway)], [0, [["id-9"]]]);
    gateway.newest.subscribed("user:42", 0, { epoch: "60", how: "gap" });
    gateway.newest.event(8, { ack: true });
    assert.equal(calls, 1);
  });

  test("that was pending arrives first, out of order, and later events arrive once", async () => {
    const gateway = await new FakeGateway({ cursor: "user:42=5f.10" }).connected();
    const received: number[] = [];
    gateway.bus.on("a.b", ({ offset }) => received.push(offset));
    gateway.newest.subscribed("user:42", 10);
    gateway.newest.control("hold", { channel: "user:42", offset: 10 });
    gateway.newest.event(14, { ack: true });
    gateway.newest.event(12, { ack: true });
    assert.equal(gateway.bus.cursor, "user:42=5f.10");
    gateway.newest.control("release", { channel: "user:42", offset: 10 });
    gateway.newest.event(11);
    gateway.newest.event(13);
    gateway.newest.control("position", { channel: "user:42", epoch: "5f", offset: 14 });
    assert.deepEqual(received, [14, 12, 11, 13]);
    assert.equal(gateway.bus.cursor, "user:42=5f.14");
  });

  test("is acknowledged over the next connection if this one ended", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.on("a.b", () => undefined);
    gateway.newest.event(1, { ack: true });
    gateway.newest.close(1006);
    await gateway.reconnected();
    gateway.newest.hello();
    await gateway.clock.advance(50);
    assert.deepEqual(acknowledged(gateway), [["id-1"]]);
    gateway.newest.close(1006);
    await gateway.reconnected();
    gateway.newest.hello();
    await gateway.clock.advance(50);
    assert.deepEqual(acknowledged(gateway), [["id-1"]], "the gateway had not replied");
  });

  test("is acknowledged again when the gateway can write again", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.on("a.b", () => undefined);
    gateway.newest.event(1, { ack: true });
    await gateway.clock.advance(50);
    const { ref } = gateway.newest.sent.at(-1) ?? {};
    gateway.newest.control("error", { code: "read_only", message: "", ref, retry_ms: 2000 });
    await gateway.clock.advance(1000);
    assert.equal(acknowledged(gateway).length, 1);
    await gateway.clock.advance(1500);
    assert.equal(acknowledged(gateway).length, 2);
    await replyToLast(gateway);
    await gateway.clock.advance(5_000);
    assert.equal(acknowledged(gateway).length, 2);
  });

  test("is acknowledged after the reply to the previous command", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.on("a.b", () => undefined);
    gateway.newest.subscribed("user:42", 0);
    for (const offset of [1, 2, 3]) {
      gateway.newest.event(offset, { ack: true });
      await gateway.clock.advance(50);
    }
    assert.deepEqual(acknowledged(gateway), [["id-1"]]);
    await replyToLast(gateway);
    await gateway.clock.advance(50);
    assert.deepEqual(acknowledged(gateway), [["id-1"], ["id-2", "id-3"]]);
    gateway.newest.event(4, { ack: true });
    const { ref } = gateway.newest.sent.at(-1) ?? {};
    gateway.newest.control("error", { code: "bad_command", message: "", ref });
    await gateway.clock.advance(50);
    assert.deepEqual(acknowledged(gateway).at(-1), ["id-4"], "the ids of a final refusal are not sent again");
    await replyToLast(gateway);
    await gateway.clock.advance(5_000);
    assert.equal(acknowledged(gateway).length, 3);
  });

  test("leaves no timer when the bus closes", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.on("a.b", () => undefined);
    gateway.newest.event(1, { ack: true });
    await flushPromises();
    gateway.bus.close();
    await flushPromises();
    assert.equal(gateway.clock.timers, 0);
  });
});

describe("a local event", () => {
  test("has no offset, and is not delivered again with its offset", async () => {
    const gateway = await new FakeGateway().connected();
    const received: [string, number][] = [];
    gateway.bus.on("a.b", ({ id, offset }) => received.push([id, offset]));
    gateway.newest.subscribed("user:42", 3);
    gateway.newest.text('{"id":"here","type":"a.b","topic":"user:42:operation:9","time":0,"data":{}}');
    assert.equal(gateway.bus.cursor, "user:42=5f.3");
    gateway.newest.event(4, { id: "here" });
    gateway.newest.event(5);
    assert.deepEqual(received, [["here", 0], ["id-5", 5]]);
    assert.equal(gateway.bus.cursor, "user:42=5f.5");
  });

  test("is acknowledged when it arrives with its offset", async () => {
    const gateway = await new FakeGateway().connected();
    let calls = 0;
    gateway.bus.on("a.b", () => ++calls);
    gateway.newest.subscribed("user:42", 3);
    gateway.newest.text('{"id":"here","type":"a.b","topic":"user:42:operation:9","time":0,"ack":true,"data":{}}');
    await gateway.clock.advance(50);
    assert.deepEqual(acknowledged(gateway), []);
    gateway.newest.event(4, { id: "here", ack: true });
    await gateway.clock.advance(50);
    assert.deepEqual([calls, acknowledged(gateway)], [1, [["here"]]]);
  });
});
