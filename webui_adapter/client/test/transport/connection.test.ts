// States, back-off, heartbeat, drain and fallback of the connection.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FakeGateway } from "../fake_gateway.js";
import { flushPromises } from "../fake_clock.js";

describe("states", () => {
  test("connecting, open, degraded, open", async () => {
    const gateway = await new FakeGateway().open();
    assert.equal(gateway.status, "connecting");
    gateway.newest.hello();
    assert.equal(gateway.status, "open");
    gateway.newest.control("degraded", { reason: "redis" });
    assert.equal(gateway.status, "degraded");
    gateway.newest.control("restored");
    assert.deepEqual(gateway.changes, [
      { status: "connecting", transport: "websocket" },
      { status: "open", transport: "websocket" },
      { status: "degraded", transport: "websocket", reason: "redis" },
      { status: "open", transport: "websocket" },
    ]);
  });

  test("waiting has its duration and cause", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.close(1006, "gone");
    assert.deepEqual(gateway.lastChange, { status: "waiting", transport: "websocket", retryInMs: 250, code: 1006, reason: "gone" });
    await gateway.reconnected();
    assert.equal(gateway.status, "connecting");
    assert.equal(gateway.connections.length, 2);
  });

  test("closed by the page: all timers and callbacks end", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.close();
    gateway.bus.close();
    assert.ok(gateway.newest.closedByClient);
    assert.deepEqual(gateway.lastChange, { status: "closed", transport: "websocket", code: 1000, reason: "closed by the page" });
    assert.equal(gateway.closeCalls, 1);
    assert.equal(gateway.clock.timers, 0);
    gateway.newest.hello();
    gateway.newest.close(1006);
    gateway.bus.checkNow();
    gateway.bus.offline();
    await gateway.clock.advance(100_000);
    assert.equal(gateway.status, "closed");
    assert.equal(gateway.connections.length, 1);
  });

  for (const code of [4500, 4501, 4502, 1008]) {
    test(`${code}: closed, without a reconnect`, async () => {
      const gateway = await new FakeGateway().connected();
      gateway.newest.close(code, "why");
      assert.deepEqual(gateway.lastChange, { status: "closed", transport: "websocket", code, reason: "why" });
      await gateway.clock.advance(100_000);
      assert.equal(gateway.connections.length, 1);
      assert.equal(gateway.closeCalls, 1);
    });
  }

  test("a listener may close the bus at any status change", async () => {
    for (const change of ["connecting", "open", "waiting"]) {
      const gateway = new FakeGateway();
      gateway.bus.on("status", ({ status }) => {
        if (status === change) gateway.bus.close();
      });
      await gateway.open();
      gateway.connections[0]?.hello();
      gateway.connections[0]?.close(1006);
      await gateway.clock.advance(100_000);
      assert.equal(gateway.status, "closed", change);
      assert.equal(gateway.clock.timers, 0, change);
    }
  });
});

describe("back-off", () => {
  test("doubles with each failure, up to its bound", async () => {
    const gateway = await new FakeGateway({ transport: "websocket" }).open();
    const waits: unknown[] = [];
    for (let failure = 0; failure < 8; failure++) {
      gateway.newest.close(1006);
      waits.push(gateway.lastChange?.retryInMs);
      await gateway.reconnected();
    }
    assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  });

  test("is reset by a stable connection, but not by a hello", async () => {
    const gateway = await new FakeGateway({ transport: "websocket" }).open();
    const waits: unknown[] = [];
    for (const heldMs of [0, 0, 4_999, 5_000, 0]) {
      gateway.newest.hello();
      await gateway.clock.advance(heldMs);
      gateway.newest.close(1012);
      waits.push(gateway.lastChange?.retryInMs);
      await gateway.reconnected();
    }
    assert.deepEqual(waits, [250, 500, 1000, 250, 500]);
  });

  test("is at least the Retry-After of the gateway", async () => {
    const gateway = await new FakeGateway({ transport: "sse" }).open();
    gateway.newest.close(503, "HTTP 503", 7_000);
    assert.equal(gateway.lastChange?.retryInMs, 7_000);
  });

  test("an attempt without a hello times out", async () => {
    const gateway = await new FakeGateway().open();
    await gateway.clock.advance(9_999);
    assert.equal(gateway.status, "connecting");
    await gateway.clock.advance(1);
    assert.deepEqual(gateway.lastChange, { status: "waiting", transport: "websocket", retryInMs: 250, code: 1006, reason: "timeout" });
    assert.ok(gateway.newest.closedByClient);
  });

  test("frames of an abandoned attempt are ignored", async () => {
    const gateway = await new FakeGateway().open();
    const first = gateway.newest;
    await gateway.clock.advance(10_000);
    first.hello();
    first.close(4500);
    assert.equal(gateway.status, "waiting");
  });

  test("a URL that the browser forbids is a failed attempt", async () => {
    const forbidden = () => {
      throw new DOMException("mixed content", "SecurityError");
    };
    const gateway = await new FakeGateway({ transports: { websocket: forbidden, sse: forbidden } }).open();
    assert.equal(gateway.lastChange?.reason, "SecurityError: mixed content");
    assert.equal(gateway.status, "waiting");
  });
});

describe("the page", () => {
  test("online or shown: reconnects immediately", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.checkNow();
    assert.equal(gateway.connections.length, 1, "the connection was open");
    gateway.newest.close(1006);
    gateway.bus.checkNow();
    await flushPromises();
    assert.equal(gateway.connections.length, 2);
    await gateway.clock.advance(5_000);
    assert.equal(gateway.connections.length, 2, "only one timer reconnects");
  });

  for (const transport of ["websocket", "sse"] as const) {
    test(`online or shown, over ${transport}: a dead connection is closed within 5 s`, async () => {
      const gateway = await new FakeGateway({ transport }).connected();
      const [first] = gateway.connections;
      gateway.bus.checkNow();
      assert.deepEqual(first?.sent, [{ do: "ping" }]);
      await gateway.clock.advance(4_999);
      assert.equal(gateway.status, "open");
      await gateway.clock.advance(1);
      assert.equal(gateway.lastChange?.reason, "silence");
    });

    test(`online or shown, over ${transport}: a reply proves the connection`, async () => {
      const gateway = await new FakeGateway({ transport }).connected();
      gateway.bus.checkNow();
      await gateway.clock.advance(100);
      gateway.newest.control("ok");
      await gateway.clock.advance(49_000);
      assert.equal(gateway.connections.length, 1);
      assert.equal(gateway.status, "open");
    });
  }

  test("offline: waits, and still retries", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.offline();
    assert.ok(gateway.newest.closedByClient);
    assert.deepEqual(gateway.lastChange, { status: "waiting", transport: "websocket", retryInMs: 20_000, reason: "offline" });
    await gateway.reconnected();
    assert.equal(gateway.connections.length, 2);
  });
});

describe("heartbeat", () => {
  test("an idle WebSocket gets a ping, and is closed without a reply", async () => {
    const gateway = await new FakeGateway().connected({ ping_ms: 1_000 });
    await gateway.clock.advance(2_000);
    assert.deepEqual(gateway.newest.sent, [{ do: "ping" }]);
    gateway.newest.control("ok", {});
    await gateway.clock.advance(6_999);
    assert.equal(gateway.status, "open");
    assert.equal(gateway.newest.sent.length, 2);
    await gateway.clock.advance(5_000);
    assert.equal(gateway.changes.find(({ status }) => status === "waiting")?.reason, "silence");
  });

  test("an idle stream is asked by a ping too", async () => {
    const gateway = await new FakeGateway({ transport: "sse" }).connected({ ping_ms: 1_000 });
    for (let second = 0; second < 10; second++) {
      await gateway.clock.advance(1_000);
      gateway.newest.activity();
    }
    assert.equal(gateway.status, "open");
    await gateway.clock.advance(2_000);
    assert.deepEqual(gateway.newest.sent, [{ do: "ping" }]);
    await gateway.clock.advance(5_000);
    assert.equal(gateway.changes.find(({ status }) => status === "waiting")?.reason, "silence");
  });
});

describe("drain", () => {
  test("delivers events until its time, then reconnects immediately", async () => {
    const gateway = await new FakeGateway().connected();
    const first = gateway.newest;
    first.control("drain", { after_ms: 1_500 });
    await gateway.clock.advance(1_499);
    assert.equal(gateway.status, "open");
    assert.ok(!first.closedByClient);
    await gateway.clock.advance(1);
    assert.ok(first.closedByClient);
    assert.equal(gateway.connections.length, 2);
    assert.equal(gateway.status, "connecting");
  });

  test("closed before its time: reconnects with full jitter", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.control("drain", { after_ms: 60_000 });
    gateway.newest.close(4000, "drain");
    assert.equal(gateway.lastChange?.retryInMs, 250);
    await gateway.reconnected();
    gateway.newest.hello();
    await gateway.clock.advance(40_000);
    assert.equal(gateway.connections.length, 2, "the drain timer of the first connection is cancelled");
  });
});

describe("fallback", () => {
  test("SSE follows two WebSocket failures and stays after a hello", async () => {
    const gateway = await new FakeGateway().open();
    gateway.newest.close(1006);
    (await gateway.reconnected()).close(1006);
    const third = await gateway.reconnected();
    assert.equal(third.transport, "sse");
    third.hello();
    assert.deepEqual(gateway.lastChange, { status: "open", transport: "sse" });
    third.close(1006);
    assert.equal((await gateway.reconnected()).transport, "sse");
  });

  test("a WebSocket without a hello counts as a failure", async () => {
    const gateway = await new FakeGateway().open();
    await gateway.clock.advance(10_000);
    await gateway.reconnected();
    await gateway.clock.advance(10_000);
    assert.equal((await gateway.reconnected()).transport, "sse");
  });

  test("a refusal by the gateway is not a failure of the transport", async () => {
    const gateway = await new FakeGateway().open();
    for (let refusal = 0; refusal < 4; refusal++) {
      gateway.newest.close(4003);
      assert.equal((await gateway.reconnected()).transport, "websocket");
    }
  });
});
