// Subscribing and unsubscribing.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { FakeGateway } from "./fake_gateway.js";
import { isRefusal, outcome } from "./promises.js";

describe("subscribe", () => {
  const AGREED = { topics: ["collection:7:x"], how: "snapshot" };

  test("resolves with the reply, and stays over reconnects", async () => {
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

  test("rejects with the details of the refusal, and is not sent again", async () => {
    const gateway = await new FakeGateway().connected();
    const refusal = gateway.bus.subscribe("collection:7:x");
    gateway.newest.control("error", { ref: 1, code: "rate_limited", message: "slowly", retry_ms: 2_000, limit: 5, field: "topic" });
    await assert.rejects(refusal, isRefusal("rate_limited", { message: "slowly", retryMs: 2_000, limit: 5, field: "topic" }));
    gateway.newest.close(1006);
    assert.deepEqual((await gateway.reconnected()).handshake.topics, []);
  });

  test("before the connection: sent when it is open", async () => {
    const gateway = new FakeGateway();
    const agreed = gateway.bus.subscribe("collection:7:x");
    await gateway.open();
    assert.deepEqual(gateway.newest.handshake.topics, []);
    gateway.newest.hello();
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "collection:7:x", ref: 1 }]);
    gateway.newest.subscribed("collection:7", 3, { ...AGREED, ref: 1 });
    await agreed;
  });

  test("without a reply when the connection is lost: sent again over the next", async () => {
    const gateway = await new FakeGateway().connected();
    const agreed = gateway.bus.subscribe("collection:7:x");
    gateway.newest.close(1006);
    (await gateway.reconnected()).hello();
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "collection:7:x", ref: 1 }]);
    gateway.newest.subscribed("collection:7", 3, { ...AGREED, ref: 1 });
    await agreed;
  });

  test("from a position: a lost connection resumes from it", async () => {
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

  test("with an argument of the wrong form: rejected and not sent", async () => {
    const gateway = await new FakeGateway().connected();
    await assert.rejects(gateway.bus.subscribe("collection:7"), isRefusal("bad_topic", { field: "topic" }));
    await assert.rejects(gateway.bus.subscribe("collection:7:x", { from: "17" }), isRefusal("bad_command", { field: "from" }));
    assert.deepEqual(gateway.newest.sent, []);
  });

  test("on a closed bus: rejected", async () => {
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

  test("is not sent again, and its channel leaves the cursor", async () => {
    const gateway = await subscribed();
    const agreed = gateway.bus.unsubscribe("collection:7:x");
    assert.deepEqual(gateway.newest.sent[1], { do: "unsubscribe", topic: "collection:7:x", ref: 2 });
    gateway.newest.control("ok", { ref: 2 });
    await agreed;
    assert.equal(gateway.bus.cursor, "");
    gateway.newest.close(1006);
    assert.deepEqual((await gateway.reconnected()).handshake, { token: undefined, cursor: "", topics: [] });
  });

  test("a channel with another pattern stays in the cursor", async () => {
    const gateway = await subscribed();
    const another = gateway.bus.subscribe("collection:7:y");
    gateway.newest.subscribed("collection:7", 5, { topics: ["collection:7:x", "collection:7:y"], ref: 2 });
    await another;
    const agreed = gateway.bus.unsubscribe("collection:7:x");
    gateway.newest.control("ok", { ref: 3 });
    await agreed;
    assert.equal(gateway.bus.cursor, "collection:7=5f.5");
  });

  test("without a reply when the connection is lost: resolved, as the next does not subscribe", async () => {
    const gateway = await subscribed();
    const agreed = gateway.bus.unsubscribe("collection:7:x");
    gateway.newest.close(1006);
    await agreed;
    assert.deepEqual((await gateway.reconnected()).handshake.topics, []);
  });

  test("without a connection: resolved, and a pending subscription is cancelled", async () => {
    const gateway = new FakeGateway();
    const open = gateway.bus.subscribe("collection:7:x");
    const other = gateway.bus.subscribe("collection:7:y");
    await gateway.bus.unsubscribe("collection:7:x");
    await assert.rejects(open, isRefusal("cancelled"));
    assert.equal(await outcome(other), "pending");
  });

  test("a default pattern is removed in every session", async () => {
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

test("one reply can confirm two patterns of a channel", async () => {
  const gateway = await new FakeGateway().connected();
  const both = [gateway.bus.subscribe("collection:7:x"), gateway.bus.subscribe("collection:7:y")];
  gateway.newest.subscribed("collection:7", 3, { topics: ["collection:7:x", "collection:7:y"], ref: 1 });
  await Promise.all(both);
});

describe("over SSE", () => {
  test("the query carries pending patterns", async () => {
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

  test("an instance without the session: a new stream carries the pattern", async () => {
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

  test("a refusal in the response and in the stream: one rejection and no error", async (t) => {
    const reported = t.mock.method(console, "error", () => undefined);
    const gateway = await new FakeGateway({ transport: "sse" }).connected();
    const refusal = gateway.bus.subscribe("collection:7:x");
    for (let time = 0; time < 2; time++) gateway.newest.control("error", { ref: 1, code: "forbidden", message: "no" });
    await assert.rejects(refusal, isRefusal("forbidden"));
    assert.equal(reported.mock.callCount(), 0);
  });

  test("a pattern that is added while the stream opens is sent as a command", async () => {
    const gateway = await new FakeGateway({ transport: "sse" }).open();
    gateway.bus.subscribe("collection:7:x").catch(() => undefined);
    gateway.newest.hello();
    assert.deepEqual(gateway.newest.sent, [{ do: "subscribe", topic: "collection:7:x", ref: 1 }]);
  });
});
