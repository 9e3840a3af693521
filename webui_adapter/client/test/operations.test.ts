// Operations: fetched and stopped by commands.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { BusError } from "../src/protocol/errors.js";
import type { Operation } from "../src/operations.js";
import { isControlEvent, parseFrame } from "../src/protocol/messages.js";
import { FakeGateway } from "./fake_gateway.js";
import { golden } from "./golden.js";
import { outcome } from "./promises.js";

const OPERATION = goldenData("ok, with an operation")["operation"] as Operation;

function goldenData(title: string): Record<string, unknown> {
  const found = golden<{ name: string; frame: string }>("words").find(({ name }) => name === title);
  const frame = parseFrame(found?.frame ?? "");
  assert.ok(frame && isControlEvent(frame));
  return frame.data as Record<string, unknown>;
}

function goldenCommand(title: string): unknown {
  return golden<{ name: string; parsed: unknown }>("commands").find(({ name }) => name === title)?.parsed;
}

describe("commands", () => {
  const cases: [string, (bus: FakeGateway["bus"]) => Promise<unknown>][] = [
    ["operations", (bus) => bus.operations()],
    ["operations, few, of some states, of another user", (bus) => bus.operations({ limit: 5, state: ["queued", "running"], user: "43" })],
    ["operation", (bus) => bus.op(9).info()],
    ["operation of another user", (bus) => bus.op("9").info({ user: "43" })],
    ["cancel", (bus) => bus.op("9").cancel()],
    ["cancel of another user's", (bus) => bus.op("9").cancel({ user: "ann@example.org" })],
  ];
  for (const [name, ask] of cases) {
    test(name, async () => {
      const gateway = await new FakeGateway().connected();
      ask(gateway.bus).catch(() => undefined);
      assert.deepEqual(gateway.newest.sent, [goldenCommand(name)]);
      gateway.bus.close();
    });
  }

  test("one state is sent as a list", async () => {
    const gateway = await new FakeGateway().connected();
    void gateway.bus.operations({ state: "lost" });
    assert.deepEqual(gateway.newest.sent, [{ do: "operations", state: ["lost"], ref: 1 }]);
  });
});

describe("replies", () => {
  test("cancel resolves with the operation", async () => {
    const gateway = await new FakeGateway().connected();
    const cancelled = gateway.bus.op(9).cancel();
    assert.equal(await outcome(cancelled), "pending");
    gateway.newest.control("ok", { ref: 1, operation: OPERATION });
    assert.deepEqual(await cancelled, OPERATION);
  });

  test("info resolves with an operation, operations with a list", async () => {
    const gateway = await new FakeGateway().connected();
    const info = gateway.bus.op(9).info();
    const list = gateway.bus.operations();
    gateway.newest.control("ok", { ...goldenData("ok, with operations"), ref: 2 });
    gateway.newest.control("ok", { ref: 1, operation: OPERATION });
    assert.deepEqual((await info).tasks, [{ task: "t-1", name: "shop.read", retries: 0, lost: false }]);
    assert.deepEqual((await list).map(({ id }) => id), ["9"]);
  });

  test("a refusal rejects with its details", async () => {
    const gateway = await new FakeGateway().connected();
    const errors: unknown[] = [];
    gateway.bus.on("error", (error) => errors.push(error));
    const cancelled = gateway.bus.op(9).cancel();
    gateway.newest.control("error", { ...goldenData("error, read only"), ref: 1 });
    await assert.rejects(cancelled, (error: unknown) => error instanceof BusError && error.code === "read_only" && error.retryMs === 2000);
    const missing = gateway.bus.op(9).info();
    gateway.newest.control("error", { ...goldenData("error, unknown operation"), ref: 2 });
    await assert.rejects(missing, (error: unknown) => error instanceof BusError && error.code === "unknown_operation" && error.field === "operation");
    assert.deepEqual(errors, [], "the promise carries the error");
  });
});

describe("without a connection", () => {
  test("a command is sent when there is one", async () => {
    const gateway = new FakeGateway();
    const cancelled = gateway.bus.op(9).cancel();
    await gateway.connected();
    assert.deepEqual(gateway.newest.sent, [{ do: "cancel", operation: "9", ref: 1 }]);
    gateway.newest.control("ok", { ref: 1, operation: OPERATION });
    assert.equal((await cancelled).id, "9");
  });

  for (const transport of ["websocket", "sse"] as const) {
    test(`a command without a reply is sent again, over ${transport}`, async () => {
      const gateway = await new FakeGateway({ transport }).connected();
      const cancelled = gateway.bus.op(9).cancel();
      const list = gateway.bus.operations();
      gateway.newest.close(1006);
      assert.equal(await outcome(cancelled), "pending");
      const second = await gateway.reconnected();
      assert.deepEqual(second.handshake.topics, []);
      second.hello();
      assert.deepEqual(second.sent, [{ do: "cancel", operation: "9", ref: 1 }, { do: "operations", ref: 2 }]);
      second.control("ok", { ref: 1, operation: OPERATION });
      second.control("ok", { ref: 2, operations: [] });
      assert.equal((await cancelled).state, "cancelling");
      assert.deepEqual(await list, []);
    });
  }

  test("a closed bus rejects", async () => {
    const gateway = await new FakeGateway().connected();
    const cancelled = gateway.bus.op(9).cancel();
    gateway.bus.close();
    assert.equal(await outcome(cancelled), "closed");
    assert.equal(await outcome(gateway.bus.operations()), "closed");
  });
});

test("events of the operation are delivered", async () => {
  const gateway = await new FakeGateway().connected();
  const received: number[] = [];
  gateway.bus.op(9).on("a.b", ({ offset }) => received.push(offset));
  gateway.newest.event(1);
  gateway.newest.event(2, { topic: "user:42:operation:8" });
  assert.deepEqual(received, [1]);
});
