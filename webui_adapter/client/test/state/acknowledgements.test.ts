// Events that must reach a person, and those that come without a place.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FakeGateway } from "../fake_gateway.js";
import { settled } from "../fake_clock.js";

/** The ids of all `ack` commands on the newest connection. */
function acked(gateway: FakeGateway): string[][] {
  return gateway.now.sent.flatMap((command) => (command.do === "ack" ? [[...command.ids]] : []));
}

async function answered(gateway: FakeGateway): Promise<void> {
  const { ref } = gateway.now.sent.at(-1) ?? {};
  gateway.now.say("ok", { ref, acked: 1 });
  await settled();
}

describe("events that must reach a person", () => {
  test("are acknowledged after the listeners have returned, together", async () => {
    const gateway = await new FakeGateway().greeted();
    const heard: number[] = [];
    gateway.bus.on("a.b", ({ offset }) => heard.push(offset));
    gateway.now.subscribed("user:42", 0);
    gateway.now.event(1, { ack: true });
    gateway.now.event(2, { ack: true });
    assert.deepEqual([heard, acked(gateway)], [[1, 2], []]);
    await gateway.world.pass(50);
    assert.deepEqual(acked(gateway), [["id-1", "id-2"]]);
    await answered(gateway);
    await gateway.world.pass(5_000);
    assert.equal(acked(gateway).length, 1);
  });

  test("wait for what listeners have promised", async () => {
    const gateway = await new FakeGateway().greeted();
    let done: () => void = () => undefined;
    gateway.bus.on("a.b", () => new Promise<void>((resolve) => (done = resolve)));
    gateway.now.event(1, { ack: true });
    gateway.now.event(1, { ack: true });
    await gateway.world.pass(1000);
    assert.deepEqual(acked(gateway), []);
    done();
    await gateway.world.pass(50);
    assert.deepEqual(acked(gateway), [["id-1"]]);
  });

  test("come again where a listener failed, and are given again", async (t) => {
    const reported = t.mock.method(console, "error", () => undefined);
    const gateway = await new FakeGateway().greeted();
    let calls = 0;
    gateway.bus.on("a.b", () => {
      if (++calls === 1) throw new Error("poison");
      return calls === 2 ? Promise.reject(new Error("still poison")) : undefined;
    });
    gateway.now.subscribed("user:42", 0);
    for (const call of [1, 2]) {
      gateway.now.event(1, { ack: true });
      await gateway.world.pass(50);
      assert.deepEqual([calls, acked(gateway)], [call, []]);
    }
    gateway.now.event(1, { ack: true });
    await gateway.world.pass(50);
    assert.deepEqual([calls, acked(gateway)], [3, [["id-1"]]]);
    assert.equal(reported.mock.callCount(), 2);
  });

  test("that come again after all went well are acknowledged again and given to nobody", async () => {
    const gateway = await new FakeGateway().greeted();
    let calls = 0;
    gateway.bus.on("a.b", () => ++calls);
    gateway.now.subscribed("user:42", 0);
    gateway.now.event(5, { ack: true });
    await gateway.world.pass(50);
    await answered(gateway);
    gateway.now.event(5, { ack: true });
    await gateway.world.pass(50);
    assert.equal(calls, 1);
    assert.deepEqual(acked(gateway), [["id-5"], ["id-5"]]);
    assert.equal(gateway.bus.cursor, "user:42=5f.5");
  });

  test("that nobody listens to are not acknowledged", async () => {
    const gateway = await new FakeGateway().greeted();
    gateway.bus.op(8).on("a.b", () => assert.fail("another operation's"));
    gateway.now.subscribed("user:42", 0);
    gateway.now.event(1, { ack: true });
    await gateway.world.pass(50);
    assert.deepEqual(acked(gateway), []);
    let calls = 0;
    gateway.bus.on("*", () => ++calls);
    gateway.now.event(1, { ack: true });
    await gateway.world.pass(50);
    assert.deepEqual([calls, acked(gateway)], [1, [["id-1"]]]);
  });

  test("below where the page began were handed over before; not in another life of the channel", async () => {
    const gateway = await new FakeGateway({ cursor: "user:42=5f.10" }).greeted();
    let calls = 0;
    gateway.bus.on("a.b", () => ++calls);
    gateway.now.subscribed("user:42", 10);
    gateway.now.event(9, { ack: true });
    await gateway.world.pass(50);
    assert.deepEqual([calls, acked(gateway)], [0, [["id-9"]]]);
    gateway.now.subscribed("user:42", 0, { epoch: "60", how: "gap" });
    gateway.now.event(8, { ack: true });
    assert.equal(calls, 1);
  });

  test("that were pending come first, out of order, and the rest follows once", async () => {
    const gateway = await new FakeGateway({ cursor: "user:42=5f.10" }).greeted();
    const heard: number[] = [];
    gateway.bus.on("a.b", ({ offset }) => heard.push(offset));
    gateway.now.subscribed("user:42", 10);
    gateway.now.say("hold", { channel: "user:42", offset: 10 });
    gateway.now.event(14, { ack: true });
    gateway.now.event(12, { ack: true });
    assert.equal(gateway.bus.cursor, "user:42=5f.10");
    gateway.now.say("release", { channel: "user:42", offset: 10 });
    gateway.now.event(11);
    gateway.now.event(13);
    gateway.now.say("position", { channel: "user:42", epoch: "5f", offset: 14 });
    assert.deepEqual(heard, [14, 12, 11, 13]);
    assert.equal(gateway.bus.cursor, "user:42=5f.14");
  });

  test("are acknowledged over the next connection where this one ended", async () => {
    const gateway = await new FakeGateway().greeted();
    gateway.bus.on("a.b", () => undefined);
    gateway.now.event(1, { ack: true });
    gateway.now.close(1006);
    await gateway.retried();
    gateway.now.hello();
    await gateway.world.pass(50);
    assert.deepEqual(acked(gateway), [["id-1"]]);
    gateway.now.close(1006);
    await gateway.retried();
    gateway.now.hello();
    await gateway.world.pass(50);
    assert.deepEqual(acked(gateway), [["id-1"]], "nobody had answered");
  });

  test("are acknowledged again when the gateway can write again", async () => {
    const gateway = await new FakeGateway().greeted();
    gateway.bus.on("a.b", () => undefined);
    gateway.now.event(1, { ack: true });
    await gateway.world.pass(50);
    const { ref } = gateway.now.sent.at(-1) ?? {};
    gateway.now.say("error", { code: "read_only", message: "", ref, retry_ms: 2000 });
    await gateway.world.pass(1000);
    assert.equal(acked(gateway).length, 1);
    await gateway.world.pass(1500);
    assert.equal(acked(gateway).length, 2);
    await answered(gateway);
    await gateway.world.pass(5_000);
    assert.equal(acked(gateway).length, 2);
  });

  test("are said once while the answer is under way, and those that come meanwhile after it", async () => {
    const gateway = await new FakeGateway().greeted();
    gateway.bus.on("a.b", () => undefined);
    gateway.now.subscribed("user:42", 0);
    for (const offset of [1, 2, 3]) {
      gateway.now.event(offset, { ack: true });
      await gateway.world.pass(50);
    }
    assert.deepEqual(acked(gateway), [["id-1"]]);
    await answered(gateway);
    await gateway.world.pass(50);
    assert.deepEqual(acked(gateway), [["id-1"], ["id-2", "id-3"]]);
    gateway.now.event(4, { ack: true });
    const { ref } = gateway.now.sent.at(-1) ?? {};
    gateway.now.say("error", { code: "bad_command", message: "", ref });
    await gateway.world.pass(50);
    assert.deepEqual(acked(gateway).at(-1), ["id-4"], "not those again that were refused for good");
    await answered(gateway);
    await gateway.world.pass(5_000);
    assert.equal(acked(gateway).length, 3);
  });

  test("leave no timer behind", async () => {
    const gateway = await new FakeGateway().greeted();
    gateway.bus.on("a.b", () => undefined);
    gateway.now.event(1, { ack: true });
    await settled();
    gateway.bus.close();
    await settled();
    assert.equal(gateway.world.timers, 0);
  });
});

describe("news of the gateway's own process", () => {
  test("come without a place, and not again when they have got one", async () => {
    const gateway = await new FakeGateway().greeted();
    const heard: [string, number][] = [];
    gateway.bus.on("a.b", ({ id, offset }) => heard.push([id, offset]));
    gateway.now.subscribed("user:42", 3);
    gateway.now.text('{"id":"here","type":"a.b","topic":"user:42:operation:9","time":0,"data":{}}');
    assert.equal(gateway.bus.cursor, "user:42=5f.3");
    gateway.now.event(4, { id: "here" });
    gateway.now.event(5);
    assert.deepEqual(heard, [["here", 0], ["id-5", 5]]);
    assert.equal(gateway.bus.cursor, "user:42=5f.5");
  });

  test("are acknowledged when they have got their place", async () => {
    const gateway = await new FakeGateway().greeted();
    let calls = 0;
    gateway.bus.on("a.b", () => ++calls);
    gateway.now.subscribed("user:42", 3);
    gateway.now.text('{"id":"here","type":"a.b","topic":"user:42:operation:9","time":0,"ack":true,"data":{}}');
    await gateway.world.pass(50);
    assert.deepEqual(acked(gateway), []);
    gateway.now.event(4, { id: "here", ack: true });
    await gateway.world.pass(50);
    assert.deepEqual([calls, acked(gateway)], [1, [["here"]]]);
  });
});
