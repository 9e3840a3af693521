// `connect` with a real HTTP server and a fake page.
import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { describe, test, type TestContext } from "node:test";
import { connect } from "../src/client.js";
import type { Bus, Options, Status } from "../src/types.js";
import { beginStream, serve, write } from "./http_gateway.js";

interface Events {
  "document.indexed": { document: string };
}

function statusReached(bus: Bus<Events>, status: Status): Promise<void> {
  return new Promise((resolve) => {
    const stop = bus.on("status", (change) => {
      if (change.status !== status) return;
      stop();
      resolve();
    });
  });
}

/** A gateway whose streams stay open. */
async function gateway(t: TestContext) {
  const streams: ServerResponse[] = [];
  const served = await serve(t, ({ url }, response) => {
    const offset = Number(/^user:42=5f\.(\d+)/.exec(url.searchParams.get("cursor") ?? "")?.[1] ?? 10);
    streams.push(response);
    beginStream(response);
    write(response, "bus.hello", { data: { session: "s", user: "42", ping_ms: 25_000, expires: null } });
    write(response, "bus.subscribed", { data: { channel: "user:42", topics: ["user:42:*"], epoch: "5f", offset, how: "resumed" } });
    write(response, "document.indexed", { offset: 11, id: "i", topic: "user:42:operation:9", data: { document: "a.pdf" } });
  });
  const open = (options: Partial<Options> = {}): Bus<Events> => {
    const bus = connect<Events>({ url: served.prefix.href, transport: "sse", backoff: { minMs: 1, maxMs: 5 }, ...options });
    t.after(() => bus.close());
    return bus;
  };
  return { ...served, streams, open };
}

/** Adds the globals of a browser that Node does not have. */
function fakePage(t: TestContext): { page: EventTarget; document: EventTarget & { hidden: boolean }; storage: Map<string, string> } {
  const page = new EventTarget();
  const document = Object.assign(new EventTarget(), { hidden: false });
  const storage = new Map<string, string>();
  const globals = {
    addEventListener: page.addEventListener.bind(page),
    document,
    sessionStorage: { getItem: (key: string) => storage.get(key) ?? null, setItem: (key: string, value: string) => storage.set(key, value) },
  };
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, configurable: true });
    t.after(() => Reflect.deleteProperty(globalThis, name));
  }
  return { page, document, storage };
}

test("connect, receive an event, reconnect, close", async (t) => {
  const { open, requests, streams } = await gateway(t);
  const bus = open({ cursor: "user:42=5f.10" });
  const documents: string[] = [];
  bus.op(9).on("document.indexed", (event) => documents.push(event.data.document));
  assert.equal(bus.status, "connecting");
  await new Promise((resolve) => bus.on("document.indexed", resolve));
  assert.equal(bus.status, "open");
  assert.equal(bus.cursor, "user:42=5f.11");

  const again = statusReached(bus, "open");
  streams[0]?.end();
  await again;
  assert.deepEqual(requests.map(({ url }) => url.searchParams.get("cursor")), ["user:42=5f.10", "user:42=5f.11"]);
  assert.deepEqual(documents, ["a.pdf"]);
  bus.close();
  assert.equal(bus.status, "closed");
});

describe("options of the wrong form throw", () => {
  for (const options of [
    { url: "/eventbus" },
    { url: "http://h/", cursor: "17" },
    { url: "http://h/", topics: ["collection:7"] },
  ]) {
    test(JSON.stringify(options), () => assert.throws(() => connect(options), TypeError));
  }
});

describe("the page", () => {
  test("goes offline and online", async (t) => {
    const { page } = fakePage(t);
    const { open, streams } = await gateway(t);
    const bus = open();
    await statusReached(bus, "open");
    page.dispatchEvent(new Event("offline"));
    assert.equal(bus.status, "waiting");
    page.dispatchEvent(new Event("online"));
    await statusReached(bus, "open");
    assert.equal(streams.length, 2);
  });

  test("is shown while the bus waits", async (t) => {
    const { document } = fakePage(t);
    const { open, streams } = await gateway(t);
    const bus = open({ backoff: { minMs: 600_000, maxMs: 600_000 } });
    await statusReached(bus, "open");
    const waiting = statusReached(bus, "waiting");
    streams[0]?.end();
    await waiting;
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(bus.status, "connecting");
  });

  test("does not affect a closed bus", async (t) => {
    const { page } = fakePage(t);
    const { open } = await gateway(t);
    const bus = open();
    await statusReached(bus, "open");
    bus.close();
    page.dispatchEvent(new Event("offline"));
    page.dispatchEvent(new Event("online"));
    assert.equal(bus.status, "closed");
  });
});

describe("the stored cursor", () => {
  test("is saved when the page is hidden, and resumed from", async (t) => {
    const { page, document, storage } = fakePage(t);
    const { open, requests } = await gateway(t);
    const first = open({ storageKey: "bus" });
    await new Promise((resolve) => first.on("document.indexed", resolve));
    assert.equal(storage.get("bus"), undefined, "the bus does not save at each event");
    page.dispatchEvent(new Event("pagehide"));
    // The event had no listener of its operation.
    const stored = "user:42=5f.11\nuser:42:operation:9 document.indexed";
    assert.equal(storage.get("bus"), stored);
    storage.clear();
    document.hidden = true;
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(storage.get("bus"), stored);
    storage.clear();
    first.close();
    assert.equal(storage.get("bus"), stored);

    await statusReached(open({ storageKey: "bus" }), "open");
    await statusReached(open({ storageKey: "bus", cursor: "user:42=5f.12,system=0" }), "open");
    storage.set("bus", "nonsense");
    await statusReached(open({ storageKey: "bus" }), "open");
    assert.deepEqual(requests.map(({ url }) => url.searchParams.get("cursor")), [null, "user:42=5f.11", "user:42=5f.12,system=0", null]);
  });

  test("is not needed when the storage is forbidden", async (t) => {
    fakePage(t);
    const forbidden = () => {
      throw new DOMException("no", "SecurityError");
    };
    Object.defineProperty(globalThis, "sessionStorage", { value: { getItem: forbidden, setItem: forbidden }, configurable: true });
    const { open } = await gateway(t);
    const bus = open({ storageKey: "bus" });
    await statusReached(bus, "open");
    bus.close();
    assert.equal(bus.status, "closed");
  });
});
