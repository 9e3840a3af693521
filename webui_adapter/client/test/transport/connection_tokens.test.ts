// The tokens of a connection.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { BusError } from "../../src/protocol/errors.js";
import { flushPromises } from "../fake_clock.js";
import { FakeGateway } from "../fake_gateway.js";

const WITH_TOKEN = { token: () => "jwt" };

describe("tokens", () => {
  test("each connection has a fresh token in its handshake", async () => {
    let calls = 0;
    const gateway = await new FakeGateway({ token: () => `jwt-${++calls}`, topics: ["collection:7:*"], cursor: "user:42=5f.17" }).open();
    assert.deepEqual(gateway.newest.handshake, { token: "jwt-1", cursor: "user:42=5f.17", topics: ["collection:7:*"] });
    gateway.newest.close(1006);
    assert.equal((await gateway.reconnected()).handshake.token, "jwt-2");
  });

  test("a token is refreshed at 80 % of its lifetime, by the gateway's clock", async () => {
    let calls = 0;
    const gateway = await new FakeGateway({ token: () => `jwt-${++calls}` }).open();
    gateway.newest.control("hello", { user: "42", ping_ms: 9e9, expires: 5_010_000 }, 5_000_000);
    await gateway.clock.advance(7_999);
    assert.equal(calls, 1);
    await gateway.clock.advance(1);
    await flushPromises();
    assert.deepEqual(gateway.newest.sent, [{ do: "auth", token: "jwt-2", ref: 1 }]);
    gateway.newest.control("ok", { ref: 1, expires: 5_108_000 }, 5_008_000);
    await gateway.clock.advance(79_999);
    assert.equal(calls, 2);
    await gateway.clock.advance(1);
    assert.equal(calls, 3);
    assert.equal(gateway.connections.length, 1);
  });

  test("an unknown lifetime is treated as equal to the previous one", async () => {
    const gateway = await new FakeGateway(WITH_TOKEN).connected({ ping_ms: 9e9, expires: 10_000 });
    await gateway.clock.advance(8_000);
    await flushPromises();
    gateway.newest.control("ok", { ref: 1 });
    await gateway.clock.advance(8_000);
    await flushPromises();
    assert.equal(gateway.newest.sent.length, 2);
  });

  test("a failed refresh is repeated in the remaining time", async () => {
    let calls = 0;
    const token = () => {
      if (++calls === 2) throw new Error("the login service is down");
      return "jwt";
    };
    const gateway = await new FakeGateway({ token }).connected({ ping_ms: 9e9, expires: 10_000 });
    const errors: BusError[] = [];
    gateway.bus.on("error", (error) => errors.push(error));
    await gateway.clock.advance(8_000);
    await flushPromises();
    assert.equal(errors[0]?.code, "token");
    assert.equal((errors[0].cause as Error).message, "the login service is down");
    await gateway.clock.advance(1_600);
    await flushPromises();
    assert.deepEqual(gateway.newest.sent, [{ do: "auth", token: "jwt", ref: 1 }]);
    gateway.newest.control("error", { ref: 1, code: "unauthenticated", message: "no" });
    await flushPromises();
    assert.equal(errors[1]?.code, "unauthenticated");
    assert.equal(gateway.status, "open");
  });

  test("SSE refreshes by a new request", async () => {
    const gateway = await new FakeGateway({ ...WITH_TOKEN, transport: "sse" }).connected({ ping_ms: 9e9, expires: 10_000 });
    await gateway.clock.advance(8_000);
    assert.equal(gateway.connections.length, 2);
    assert.deepEqual(gateway.connections[0]?.sent, []);
    assert.ok(gateway.connections[0].closedByClient);
  });

  test("an expired token: one immediate reconnect, then back-off", async () => {
    const gateway = await new FakeGateway(WITH_TOKEN).connected();
    gateway.newest.close(4100);
    await flushPromises();
    assert.equal(gateway.connections.length, 2);
    gateway.newest.close(4100);
    await flushPromises();
    assert.equal(gateway.connections.length, 2);
    assert.equal(gateway.lastChange?.code, 4100);
    (await gateway.reconnected()).hello();
    await gateway.clock.advance(5_000);
    gateway.newest.close(4100);
    await flushPromises();
    assert.equal(gateway.connections.length, 4, "immediate again after a stable connection");
  });

  test("a revoked token: a pause, and then only another token", async () => {
    let token = "first";
    const gateway = await new FakeGateway({ token: () => token }).connected();
    gateway.newest.close(4102, "the token was revoked");
    await flushPromises();
    assert.equal(gateway.connections.length, 1, "the site needs time to issue another one");
    assert.equal(gateway.lastChange?.retryInMs, 1_000);
    token = "second";
    await gateway.clock.advance(1_000);
    await flushPromises();
    assert.equal(gateway.connections.length, 2);
    gateway.newest.close(4102);
    assert.equal(gateway.status, "waiting", "the site may issue a better one later");
    await gateway.clock.advance(gateway.lastChange.retryInMs ?? 0);
    await flushPromises();
    assert.equal(gateway.connections.length, 2);
    assert.equal(gateway.status, "closed", "the same token again would be refused forever");
    assert.equal(gateway.lastChange.code, 4102);
  });

  test("a token that was refreshed within the session is the one that is revoked", async () => {
    const tokens = ["first", "second", "second"];
    const token = () => tokens.shift() ?? assert.fail();
    const gateway = await new FakeGateway({ token }).connected({ ping_ms: 9e9, expires: 10_000 });
    await gateway.clock.advance(8_000);
    await flushPromises();
    gateway.newest.control("ok", { ref: 1, expires: 90_000 });
    await flushPromises();
    gateway.newest.close(4102);
    await gateway.clock.advance(1_000);
    await flushPromises();
    assert.equal(gateway.status, "closed");
  });

  test("a revoked cookie: one more attempt", async () => {
    const gateway = await new FakeGateway().connected();
    for (const hours of [1, 2]) {
      await gateway.clock.advance(10_000);
      gateway.newest.close(4102);
      assert.equal(gateway.status, "waiting", `after a stable connection, ${hours}`);
      (await gateway.reconnected()).hello();
    }
    gateway.newest.close(4102);
    assert.equal(gateway.status, "closed");
  });

  test("expired cookies: back-off, as there is no token to refresh", async () => {
    const gateway = await new FakeGateway().connected();
    gateway.newest.close(4100);
    assert.equal(gateway.lastChange?.retryInMs, 250);
  });

  test("a failed token function is an error and a failed attempt of no transport", async () => {
    const gateway = new FakeGateway({ token: () => Promise.reject(new Error("the login service is down")) });
    const errors: BusError[] = [];
    gateway.bus.on("error", (error) => errors.push(error));
    await gateway.open();
    for (let failure = 0; failure < 5; failure++) {
      assert.equal(gateway.lastChange?.status, "waiting");
      assert.equal(gateway.lastChange.transport, "websocket");
      await gateway.clock.advance(gateway.lastChange.retryInMs ?? 0);
      await flushPromises();
    }
    assert.equal(errors.length, 6);
    assert.equal(errors[0]?.code, "token");
    assert.equal(gateway.connections.length, 0);
  });

  test("a token function that never resolves times out", async () => {
    const gateway = await new FakeGateway({ token: () => new Promise(() => undefined) }).open();
    await gateway.clock.advance(10_000);
    assert.equal(gateway.lastChange?.reason, "timeout");
  });
});
