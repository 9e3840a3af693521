// How the bus keeps its connection: states, back-off, tokens, transports.
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

  test("waiting says for how long and why", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.close(1006, "gone");
    assert.deepEqual(gateway.lastChange, { status: "waiting", transport: "websocket", retryInMs: 250, code: 1006, reason: "gone" });
    await gateway.reconnected();
    assert.equal(gateway.status, "connecting");
    assert.equal(gateway.connections.length, 2);
  });

  test("closed by the page: everything ends, once", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.close();
    gateway.bus.close();
    assert.ok(gateway.newest.closedByClient);
    assert.deepEqual(gateway.lastChange, { status: "closed", transport: "websocket", code: 1000, reason: "closed by the page" });
    assert.equal(gateway.closeCalls, 1);
    assert.equal(gateway.clock.timers, 0);
    gateway.newest.hello();
    gateway.newest.close(1006);
    gateway.bus.reconnectNow();
    gateway.bus.offline();
    await gateway.clock.advance(100_000);
    assert.equal(gateway.status, "closed");
    assert.equal(gateway.connections.length, 1);
  });

  for (const code of [4500, 4501, 4502, 1008]) {
    test(`${code}: closed for good`, async () => {
      const gateway = await new FakeGateway().connected();
      gateway.newest.close(code, "why");
      assert.deepEqual(gateway.lastChange, { status: "closed", transport: "websocket", code, reason: "why" });
      await gateway.clock.advance(100_000);
      assert.equal(gateway.connections.length, 1);
      assert.equal(gateway.closeCalls, 1);
    });
  }

  test("a listener may close the bus at any change", async () => {
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
  test("doubles from failure to failure, up to its bound", async () => {
    const gateway = await new FakeGateway({ transport: "websocket" }).open();
    const waits: unknown[] = [];
    for (let failure = 0; failure < 8; failure++) {
      gateway.newest.close(1006);
      waits.push(gateway.lastChange?.retryInMs);
      await gateway.reconnected();
    }
    assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
  });

  test("begins anew after a connection that held, not after a mere hello", async () => {
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

  test("the gateway may ask for more", async () => {
    const gateway = await new FakeGateway({ transport: "sse" }).open();
    gateway.newest.close(503, "HTTP 503", 7_000);
    assert.equal(gateway.lastChange?.retryInMs, 7_000);
  });

  test("an attempt without a hello ends in time", async () => {
    const gateway = await new FakeGateway().open();
    await gateway.clock.advance(9_999);
    assert.equal(gateway.status, "connecting");
    await gateway.clock.advance(1);
    assert.deepEqual(gateway.lastChange, { status: "waiting", transport: "websocket", retryInMs: 250, code: 1006, reason: "timeout" });
    assert.ok(gateway.newest.closedByClient);
  });

  test("words of an attempt that was given up are not heard", async () => {
    const gateway = await new FakeGateway().open();
    const first = gateway.newest;
    await gateway.clock.advance(10_000);
    first.hello();
    first.close(4500);
    assert.equal(gateway.status, "waiting");
  });

  test("an address that the browser forbids is a failure like others", async () => {
    const forbidden = () => {
      throw new DOMException("mixed content", "SecurityError");
    };
    const gateway = await new FakeGateway({ transports: { websocket: forbidden, sse: forbidden } }).open();
    assert.equal(gateway.lastChange?.reason, "SecurityError: mixed content");
    assert.equal(gateway.status, "waiting");
  });
});

describe("the page", () => {
  test("online again, or shown again: no more waiting", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.reconnectNow();
    assert.equal(gateway.connections.length, 1, "it was open");
    gateway.newest.close(1006);
    gateway.bus.reconnectNow();
    await flushPromises();
    assert.equal(gateway.connections.length, 2);
    await gateway.clock.advance(5_000);
    assert.equal(gateway.connections.length, 2, "the wait is over once");
  });

  test("offline: waiting, though not for ever", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.bus.offline();
    assert.ok(gateway.newest.closedByClient);
    assert.deepEqual(gateway.lastChange, { status: "waiting", transport: "websocket", retryInMs: 20_000, reason: "offline" });
    await gateway.reconnected();
    assert.equal(gateway.connections.length, 2);
  });
});

describe("liveness", () => {
  test("a silent WebSocket is asked, and left when it does not answer", async () => {
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

  test("a silent stream is left at once, as its comments are heard", async () => {
    const gateway = await new FakeGateway({ transport: "sse" }).connected({ ping_ms: 1_000 });
    for (let second = 0; second < 10; second++) {
      await gateway.clock.advance(1_000);
      gateway.newest.activity();
    }
    assert.equal(gateway.status, "open");
    await gateway.clock.advance(2_000);
    assert.equal(gateway.lastChange?.reason, "silence");
    assert.deepEqual(gateway.newest.sent, []);
  });
});

describe("drain", () => {
  test("events until the time has come, then another connection at once", async () => {
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

  test("closed before its time: full jitter", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.control("drain", { after_ms: 60_000 });
    gateway.newest.close(4000, "drain");
    assert.equal(gateway.lastChange?.retryInMs, 250);
    await gateway.reconnected();
    gateway.newest.hello();
    await gateway.clock.advance(40_000);
    assert.equal(gateway.connections.length, 2, "the drain of the first is forgotten");
  });
});

describe("fallback", () => {
  test("SSE after WebSocket has not opened twice; its words count the same", async () => {
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

  test("a socket that opens and lets nothing through counts as closed", async () => {
    const gateway = await new FakeGateway().open();
    await gateway.clock.advance(10_000);
    await gateway.reconnected();
    await gateway.clock.advance(10_000);
    assert.equal((await gateway.reconnected()).transport, "sse");
  });

  test("a gateway that refuses has been reached", async () => {
    const gateway = await new FakeGateway().open();
    for (let refusal = 0; refusal < 4; refusal++) {
      gateway.newest.close(4003);
      assert.equal((await gateway.reconnected()).transport, "websocket");
    }
  });
});
