// Events that must reach a person, and those that come without a place.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FakeGateway } from "../fake_gateway.js";
import { flushPromises } from "../fake_clock.js";

/** The ids of all `ack` commands on the newest connection. */
function acknowledged(gateway: FakeGateway): string[][] {
  return gateway.newest.sent.flatMap((command) => (command.do === "ack" ? [[...command.ids]] : []));
}

async function replyToLast(gateway: FakeGateway): Promise<void> {
  const { ref } = gateway.newest.sent.at(-1) ?? {};
  gateway.newest.control("ok", { ref, acked: 1 });
  await flushPromises();
}

describe("events that must reach a person", () => {
  test("are acknowledged after the listeners have returned, together", async () => {
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

  test("wait for what listeners have promised", async () => {
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

  test("come again where a listener failed, and are given again", async (t) => {
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

  test("that come again after all went well are acknowledged again and given to nobody", async () => {
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

  test("that nobody listens to are not acknowledged", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.op(8).on("a.b", () => assert.fail("another operation's"));
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

  test("below where the page began were handed over before; not in another life of the channel", async () => {
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

  test("that were pending come first, out of order, and the rest follows once", async () => {
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

  test("are acknowledged over the next connection where this one ended", async () => {
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
    assert.deepEqual(acknowledged(gateway), [["id-1"]], "nobody had answered");
  });

  test("are acknowledged again when the gateway can write again", async () => {
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

  test("are said once while the answer is under way, and those that come meanwhile after it", async () => {
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
    assert.deepEqual(acknowledged(gateway).at(-1), ["id-4"], "not those again that were refused for good");
    await replyToLast(gateway);
    await gateway.clock.advance(5_000);
    assert.equal(acknowledged(gateway).length, 3);
  });

  test("leave no timer behind", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.on("a.b", () => undefined);
    gateway.newest.event(1, { ack: true });
    await flushPromises();
    gateway.bus.close();
    await flushPromises();
    assert.equal(gateway.clock.timers, 0);
  });
});

describe("news of the gateway's own process", () => {
  test("come without a place, and not again when they have got one", async () => {
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

  test("are acknowledged when they have got their place", async () => {
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
