// Listeners of an operation that register after its events have arrived.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Operation } from "../src/operations.js";
import type { BusEvent, Gap } from "../src/types.js";
import { flushPromises } from "./fake_clock.js";
import { type FakeConnection, FakeGateway } from "./fake_gateway.js";
import { pick, SEEDS, seededRandom } from "./seeded_random.js";

const BOUNDS = { operations: 2, events: 3, ms: 1_000 };
const OPERATION: Operation = {
  user: "42", id: "9", label: "Index", state: "succeeded", done: 1, failed: 0, total: 1,
  queued: 1, started: 2, heard: 3, ended: 4, cancelled: 0,
};

function end(connection: FakeConnection, offset: number, operation = "9", type = "operation.succeeded"): void {
  connection.event(offset, { type, topic: `user:42:operation:${operation}` });
}

/** Adds a listener for all events of an operation. Returns the offsets that it receives. */
function listen(gateway: FakeGateway, operation: string | number = 9): number[] {
  const received: number[] = [];
  gateway.bus.op(operation).on("*", ({ offset }) => received.push(offset));
  return received;
}

function gapsOf(gateway: FakeGateway): Gap[] {
  const gaps: Gap[] = [];
  gateway.bus.on("gap", (gap) => gaps.push(gap));
  return gaps;
}

function commands(connection: FakeConnection, name: string): unknown[] {
  return connection.sent.filter((command) => command.do === name);
}

describe("kept events", () => {
  test("go to the listeners that the same code registers, once, in order", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.subscribed("user:42", 0);
    gateway.newest.event(1);
    gateway.newest.event(2, { type: "c.d" });
    gateway.newest.event(3);
    const received: string[] = [];
    const operation = gateway.bus.op(9);
    operation.on("c.d", ({ offset }) => received.push(`c.d ${offset}`));
    operation.on("a.b", ({ offset }) => received.push(`a.b ${offset}`));
    assert.deepEqual(received, [], "the code that registers listeners runs to its end first");
    await flushPromises();
    assert.deepEqual(received, ["a.b 1", "c.d 2", "a.b 3"]);
    const later = listen(gateway);
    await flushPromises();
    gateway.newest.event(4);
    assert.deepEqual([received.at(-1), later], ["a.b 4", [4]]);
  });

  test("wait for a listener of their type", async () => {
    const gateway = await new FakeGateway().connected();
    const received: string[] = [];
    gateway.bus.op(9).on("a.b", ({ offset }) => received.push(`a.b ${offset}`));
    gateway.newest.event(1);
    gateway.newest.event(2, { type: "c.d" });
    gateway.bus.op(9).on("c.d", ({ offset }) => received.push(`c.d ${offset}`));
    await flushPromises();
    assert.deepEqual(received, ["a.b 1", "c.d 2"]);
  });

  test("were received by other listeners immediately, and are not received by them again", async () => {
    const gateway = await new FakeGateway().connected();
    const received: string[] = [];
    gateway.bus.on("*", ({ offset }) => received.push(`bus ${offset}`));
    gateway.bus.topic("user:42:*").on("*", ({ offset }) => received.push(`topic ${offset}`));
    gateway.newest.event(1);
    gateway.newest.event(2, { topic: "user:42:documents" });
    const late = listen(gateway);
    await flushPromises();
    assert.deepEqual([received, late], [["bus 1", "topic 1", "bus 2", "topic 2"], [1]]);
  });

  test("stay if the listener is removed before it received them", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.event(1);
    gateway.bus.op(9).on("*", () => assert.fail("removed"))();
    await flushPromises();
    const received = listen(gateway);
    await flushPromises();
    assert.deepEqual(received, [1]);
  });

  test("of a local event are received once, without its offset", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.text('{"id":"id-1","type":"a.b","topic":"user:42:operation:9","time":0,"data":{}}');
    gateway.newest.event(1);
    const received = listen(gateway);
    await flushPromises();
    assert.deepEqual(received, [0]);
  });
});

describe("an event with ack", () => {
  test("is acknowledged when a late listener has received it", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.event(1, { ack: true });
    gateway.newest.event(1, { ack: true });
    await gateway.clock.advance(1_000);
    assert.deepEqual(commands(gateway.newest, "ack"), []);
    const received = listen(gateway);
    await gateway.clock.advance(50);
    assert.deepEqual([received, commands(gateway.newest, "ack")], [[1], [{ do: "ack", ids: ["id-1"], ref: 1 }]]);
  });

  test("that another listener handles reaches a late listener too", async () => {
    const gateway = await new FakeGateway().connected();
    let handled: () => void = () => undefined;
    gateway.bus.on("a.b", () => new Promise<void>((resolve) => (handled = resolve)));
    gateway.newest.event(1, { ack: true });
    const received = listen(gateway);
    await gateway.clock.advance(50);
    assert.deepEqual([received, commands(gateway.newest, "ack")], [[1], []]);
    handled();
    await gateway.clock.advance(50);
    assert.equal(commands(gateway.newest, "ack").length, 1);
  });

  test("is delivered again if its late listener fails", async (t) => {
    t.mock.method(console, "error", () => undefined);
    const gateway = await new FakeGateway().connected();
    gateway.newest.event(1, { ack: true });
    let calls = 0;
    gateway.bus.op(9).on("a.b", () => {
      if (++calls === 1) throw new Error("poison");
    });
    await gateway.clock.advance(50);
    assert.deepEqual([calls, commands(gateway.newest, "ack")], [1, []]);
    gateway.newest.event(1, { ack: true });
    await gateway.clock.advance(50);
    assert.deepEqual([calls, commands(gateway.newest, "ack").length], [2, 1]);
  });

  test("that a page before the reload did not handle is not acknowledged without a listener", async () => {
    const first = await new FakeGateway().connected();
    first.newest.subscribed("user:42", 0);
    first.newest.event(1, { ack: true });
    const { stored } = first.bus;
    const second = await new FakeGateway({ cursor: stored.split("\n")[0] ?? "", stored }).connected();
    second.newest.subscribed("user:42", 1);
    second.newest.event(1, { ack: true });
    await second.clock.advance(50);
    assert.deepEqual(commands(second.newest, "ack"), []);
    const received = listen(second);
    await second.clock.advance(50);
    assert.deepEqual([received, commands(second.newest, "ack").length], [[1], 1]);
  });
});

describe("dropped events", () => {
  test("are reported as a gap, before the events that are left", async () => {
    const gateway = await new FakeGateway({ lateListeners: BOUNDS }).connected();
    gateway.newest.subscribed("user:42", 0);
    for (let offset = 1; offset <= 5; offset++) gateway.newest.event(offset);
    const order: unknown[] = [];
    gateway.bus.on("gap", (gap) => order.push(gap));
    gateway.bus.op(9).on("*", ({ offset }) => order.push(offset));
    await flushPromises();
    assert.deepEqual(order, [{ channel: "user:42", epoch: "5f", offset: 5, reason: "operation", operation: "9" }, 3, 4, 5]);
    assert.deepEqual(gateway.newest.sent, [], "the end is still to come");
  });

  test("do not matter to a listener for another type", async () => {
    const gateway = await new FakeGateway({ lateListeners: BOUNDS }).connected();
    const gaps = gapsOf(gateway);
    for (let offset = 1; offset <= 5; offset++) gateway.newest.event(offset);
    gateway.bus.op(9).on("c.d", () => undefined);
    await flushPromises();
    assert.deepEqual(gaps, []);
    listen(gateway);
    await flushPromises();
    assert.equal(gaps.length, 1);
  });

  test("with the end: the end follows from the state of the operation, once", async () => {
    const gateway = await new FakeGateway({ lateListeners: BOUNDS }).connected();
    const gaps = gapsOf(gateway);
    end(gateway.newest, 1);
    ["10", "11"].forEach((other, place) => end(gateway.newest, 2 + place, other));
    const ends: BusEvent[] = [];
    gateway.bus.op(9).on("*", (event) => ends.push(event));
    await flushPromises();
    assert.deepEqual([gaps.length, ends], [1, []]);
    assert.deepEqual(gateway.newest.sent, [{ do: "operation", operation: "9", ref: 1 }]);
    gateway.newest.control("ok", { ref: 1, operation: OPERATION });
    await flushPromises();
    assert.equal(ends.length, 1);
    const { type, topic, offset, time, data } = ends[0] ?? {};
    assert.deepEqual([type, topic, offset, time], ["operation.succeeded", "user:42:operation:9", 0, 4]);
    assert.deepEqual(data, { ...OPERATION, operation: "9" });
    listen(gateway);
    await flushPromises();
    assert.deepEqual([gaps.length, ends.length, gateway.newest.sent.length], [1, 1, 1]);
  });

  test("with the end: a listener that was removed meanwhile leaves it to the next one", async () => {
    const second = await new FakeGateway({ stored: "\nuser:42:operation:9 operation.failed" }).connected();
    second.bus.op(9).on("*", () => assert.fail("removed"))();
    await flushPromises();
    second.newest.control("ok", { ref: 1, operation: OPERATION });
    await flushPromises();
    assert.deepEqual(await receivedSoon(second), [0]);
  });

  test("with the end: a refusal for some time is asked again, another one leaves the gap", async () => {
    const gateway = await new FakeGateway({ stored: "\nuser:42:operation:9 operation.failed" }).connected();
    const gaps = gapsOf(gateway);
    const received = await receivedSoon(gateway);
    gateway.newest.control("error", { ref: 1, code: "rate_limited", message: "later", retry_ms: 500 });
    await gateway.clock.advance(500);
    assert.equal(commands(gateway.newest, "operation").length, 2);
    gateway.newest.control("error", { ref: 2, code: "unknown_operation", message: "expired" });
    await gateway.clock.advance(10_000);
    assert.deepEqual([gaps.length, received, commands(gateway.newest, "operation").length], [1, [], 2]);
  });

  test("expire some time after the newest event of their operation", async () => {
    const gateway = await new FakeGateway({ lateListeners: BOUNDS }).connected();
    const gaps = gapsOf(gateway);
    gateway.newest.event(1);
    await gateway.clock.advance(900);
    gateway.newest.event(2);
    await gateway.clock.advance(900);
    gateway.newest.event(3, { topic: "user:42:operation:10" });
    await gateway.clock.advance(100);
    gateway.newest.event(4, { topic: "user:42:operation:10" });
    const received = listen(gateway);
    const other = listen(gateway, 10);
    await flushPromises();
    assert.deepEqual([gaps.map(({ operation }) => operation), received, other], [["9"], [], [3, 4]]);
  });
});

async function receivedSoon(gateway: FakeGateway): Promise<number[]> {
  const received = listen(gateway);
  await flushPromises();
  return received;
}

describe("at any moment of registration", () => {
  for (const seed of SEEDS) {
    test(`each operation is seen to end once, and no event is lost without a gap (seed ${seed})`, () => runAtRandom(seed));
  }
});

interface Watched {
  readonly ends: number[];
  readonly received: number[];
}

/** Runs operations of a page that reloads, with listeners that register at a random moment. */
async function runAtRandom(seed: number): Promise<void> {
  const random = seededRandom(seed);
  const operations = Array.from({ length: 6 }, (_, index) => `op-${index}`);
  const script = operations.flatMap((operation) => ["a.b", "c.d", "a.b", "a.b", "operation.succeeded"].map((type) => ({ operation, type })));
  const watched = new Map<string, Watched>();
  const withGap = new Set<string>();
  const sent = new Map<string, number[]>(operations.map((operation) => [operation, []]));
  let offset = 0;
  let gateway = await page({ cursor: "", stored: "" });

  async function page(start: { cursor: string; stored: string }): Promise<FakeGateway> {
    const opened = await new FakeGateway({ lateListeners: BOUNDS, ...start }).connected();
    opened.newest.subscribed("user:42", offset);
    opened.bus.on("gap", ({ operation = "" }) => withGap.add(operation));
    return opened;
  }

  async function answer(): Promise<void> {
    await flushPromises();
    for (const command of gateway.newest.sent.splice(0)) {
      if (command.do === "operation") gateway.newest.control("ok", { ref: command.ref, operation: { ...OPERATION, id: command.operation } });
    }
    await flushPromises();
  }

  function watch(operation: string): void {
    const seen: Watched = { ends: [], received: [] };
    watched.set(operation, seen);
    gateway.bus.op(operation).on("*", (event) => {
      ((event.type as string).startsWith("operation.") ? seen.ends : seen.received).push(event.offset);
    });
  }

  while (script.length) {
    const { operation } = pick(script, random);
    const next = script.find((step) => step.operation === operation);
    script.splice(script.indexOf(next ?? assert.fail()), 1);
    gateway.newest.event(++offset, { id: `id-${offset}`, type: next?.type ?? "", topic: `user:42:operation:${operation}` });
    if (next?.type !== "operation.succeeded") sent.get(operation)?.push(offset);
    if (random() < 0.1) await gateway.clock.advance(random() * 1_500);
    const candidate = pick(operations, random);
    if (random() < 0.2 && !watched.has(candidate)) {
      watch(candidate);
      await answer();
    }
    // A reload, before the page has listeners. Later ones would begin a new history.
    if (random() < 0.1 && !watched.size) {
      const { stored } = gateway.bus;
      gateway.bus.close();
      gateway = await page({ cursor: stored.split("\n")[0] ?? "", stored });
    }
  }
  for (const operation of operations) if (!watched.has(operation)) watch(operation);
  await answer();
  await answer();
  for (const [operation, { ends, received }] of watched) {
    assert.equal(ends.length, 1, `${operation}: ends ${ends.join()}`);
    assert.deepEqual(received, [...new Set(received)].sort((one, other) => one - other), operation);
    if (!withGap.has(operation)) assert.deepEqual(received, sent.get(operation), operation);
  }
  gateway.bus.close();
}
