// Server-sent events from a real HTTP server.
import assert from "node:assert/strict";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { describe, test } from "node:test";
import { fetchEventSource } from "../../src/transport/fetch_event_source.js";
import type { Handshake, TransportListener } from "../../src/transport/transport.js";
import { beginStream, serve, write } from "../http_gateway.js";

const COOKIES: Handshake = { token: undefined, cursor: "", topics: [] };

/** Records the events of a transport. Tests can wait for them. */
class RecordingListener implements TransportListener {
  readonly frames: string[] = [];
  activityCount = 0;
  ended = false;
  #resolve: (end: readonly unknown[]) => void = () => undefined;
  readonly end = new Promise<readonly unknown[]>((resolve) => (this.#resolve = resolve));
  #framed: () => void = () => undefined;

  onFrame(text: string): void {
    this.frames.push(text);
    this.#framed();
  }
  onActivity(): void {
    this.activityCount++;
  }
  onClose(...end: readonly unknown[]): void {
    this.ended = true;
    this.#resolve(end);
  }
  async frameCount(count: number): Promise<void> {
    while (this.frames.length < count) await new Promise<void>((resolve) => (this.#framed = resolve));
  }
}

describe("the request", () => {
  test("with a token: in a header and not in the URL", async (t) => {
    const { prefix, requests } = await serve(t, (_, response) => response.writeHead(204).end());
    const recorder = new RecordingListener();
    fetchEventSource(prefix)({ token: "a.b.c", cursor: "user:42=5f.17", topics: ["collection:7:*"] }, recorder);
    await recorder.end;
    const [{ url, headers } = assert.fail()] = requests;
    assert.equal(url.pathname, "/eventbus/sse");
    assert.deepEqual([...url.searchParams], [["cursor", "user:42=5f.17"], ["topic", "collection:7:*"]]);
    assert.equal(headers.authorization, "Bearer a.b.c");
  });

  test("with cookies: no Authorization header", async (t) => {
    const { prefix, requests } = await serve(t, (_, response) => response.writeHead(204).end());
    const recorder = new RecordingListener();
    fetchEventSource(prefix)(COOKIES, recorder);
    await recorder.end;
    assert.equal(requests[0]?.headers.authorization, undefined);
    assert.equal(requests[0]?.url.search, "");
  });
});

test("a refused request: a revoked token is not like others", async (t) => {
  for (const [code, expected] of [["revoked", 4102], ["unauthenticated", 401]] as const) {
    const body = JSON.stringify({ code, message: "no" });
    const { prefix } = await serve(t, (_, response) => response.writeHead(401, { "content-type": "application/json" }).end(body));
    const recorder = new RecordingListener();
    fetchEventSource(prefix)(COOKIES, recorder);
    assert.equal((await recorder.end)[0], expected);
  }
});

describe("the stream", () => {
  test("delivers frames, and counts comments as activity", async (t) => {
    const { prefix } = await serve(t, (_, response) => {
      beginStream(response);
      write(response, "bus.hello", { data: { session: "s" } });
      response.write(": ping\n\n");
      write(response, "a.b", { topic: "user:42:x", data: "第1章 😀" });
      response.end();
    });
    const recorder = new RecordingListener();
    fetchEventSource(prefix)(COOKIES, recorder);
    assert.deepEqual(await recorder.end, [1006, "the stream ended"]);
    assert.deepEqual(recorder.frames.map((text) => (JSON.parse(text) as { data: unknown }).data), [{ session: "s" }, "第1章 😀"]);
    assert.ok(recorder.activityCount > 0);
  });

  test("a character may be split between two chunks", async (t) => {
    const bytes = Buffer.from('data: {"type":"a.b","data":"😀"}\n\n');
    const cut = bytes.indexOf(0xf0) + 2;
    const { prefix } = await serve(t, (_, response) => {
      beginStream(response);
      response.write(bytes.subarray(0, cut), () => setTimeout(() => response.end(bytes.subarray(cut)), 20));
    });
    const recorder = new RecordingListener();
    fetchEventSource(prefix)(COOKIES, recorder);
    await recorder.end;
    assert.deepEqual(recorder.frames, ['{"type":"a.b","data":"😀"}']);
  });

  test("bus.close carries the close code", async (t) => {
    const { prefix } = await serve(t, (_, response) => {
      beginStream(response);
      write(response, "bus.close", { data: { code: 4501, reason: "replaced" } });
    });
    const recorder = new RecordingListener();
    const transport = fetchEventSource(prefix)(COOKIES, recorder);
    assert.deepEqual(await recorder.end, [4501, "replaced"]);
    assert.deepEqual(recorder.frames, []);
    transport.close();
  });

  test("close() ends the request", async (t) => {
    const streams: ServerResponse[] = [];
    const { prefix } = await serve(t, (_, response) => {
      streams.push(response);
      beginStream(response);
      write(response, "bus.hello", { data: { session: "s" } });
    });
    const recorder = new RecordingListener();
    const transport = fetchEventSource(prefix)(COOKIES, recorder);
    await recorder.frameCount(1);
    const [stream = assert.fail()] = streams;
    const gone = once(stream, "close");
    transport.close();
    await gone;
  });
});

describe("a response without a stream", () => {
  for (const [status, headers, ...end] of [
    [401, {}, 401, "HTTP 401", 0],
    [403, {}, 403, "HTTP 403", 0],
    [503, { "retry-after": "7" }, 503, "HTTP 503", 7_000],
    [503, { "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT" }, 503, "HTTP 503", 0],
    [200, { "content-type": "text/html" }, 1006, "HTTP 200", 0],
    [200, {}, 1006, "HTTP 200", 0],
  ] as const) {
    test(`${status} ${JSON.stringify(headers)}`, async (t) => {
      const { prefix } = await serve(t, (_, response) => response.writeHead(status, headers).end("<html>"));
      const recorder = new RecordingListener();
      fetchEventSource(prefix)(COOKIES, recorder);
      assert.deepEqual(await recorder.end, end);
    });
  }

  test("no server", async () => {
    const recorder = new RecordingListener();
    fetchEventSource(new URL("http://127.0.0.1:1/eventbus"))(COOKIES, recorder);
    assert.equal((await recorder.end)[0], 1006);
  });
});

describe("commands", () => {
  async function sendCommand(t: Parameters<typeof serve>[0], status: number, body: string) {
    const { prefix, requests } = await serve(t, ({ method }, response) => {
      if (method === "POST") response.writeHead(status).end(body);
      else {
        beginStream(response);
        write(response, "bus.hello", { data: { session: "s-1" } });
      }
    });
    const recorder = new RecordingListener();
    const transport = fetchEventSource(prefix)({ ...COOKIES, token: "a.b.c" }, recorder);
    await recorder.frameCount(1);
    transport.send({ do: "subscribe", topic: "collection:7:*", ref: 7 });
    return { recorder, transport, requests };
  }

  test("go to the session with the same token", async (t) => {
    const { recorder, transport, requests } = await sendCommand(t, 400, '{"type":"bus.error","data":{"code":"bad_command","message":"no"}}');
    await recorder.frameCount(2);
    const [, { method, url, headers, body } = assert.fail()] = requests;
    assert.deepEqual([method, url.pathname], ["POST", "/eventbus/sessions/s-1/commands"]);
    assert.equal(headers.authorization, "Bearer a.b.c");
    assert.equal(headers["content-type"], "application/json");
    assert.deepEqual(JSON.parse(body), { do: "subscribe", topic: "collection:7:*", ref: 7 });
    assert.deepEqual(JSON.parse(recorder.frames[1] ?? ""), { type: "bus.error", data: { ref: 7, code: "bad_command", message: "no" } });
    transport.close();
  });

  test("404: asks again, for another instance may have the session", async (t) => {
    let posts = 0;
    const streams: ServerResponse[] = [];
    const { prefix } = await serve(t, ({ method }, response) => {
      if (method === "POST") {
        response.writeHead(++posts < 4 ? 404 : 202, { connection: "close" }).end();
        if (posts === 4) for (const stream of streams) write(stream, "bus.ok", { data: { ref: 7 } });
        return;
      }
      streams.push(response);
      beginStream(response);
      write(response, "bus.hello", { data: { session: "s-1" } });
    });
    const recorder = new RecordingListener();
    const transport = fetchEventSource(prefix)(COOKIES, recorder);
    await recorder.frameCount(1);
    transport.send({ do: "operations", ref: 7 });
    await recorder.frameCount(2);
    assert.equal(posts, 4);
    assert.equal(recorder.ended, false);
    transport.close();
  });

  test("404 every time: refuses the command and keeps the stream", async (t) => {
    const { recorder, transport, requests } = await sendCommand(t, 404, '{"type":"bus.error","data":{"code":"not_found","message":"no"}}');
    await recorder.frameCount(2);
    assert.deepEqual(JSON.parse(recorder.frames[1] ?? ""), { type: "bus.error", data: { ref: 7, code: "not_found", message: "no" } });
    assert.equal(requests.filter(({ method }) => method === "POST").length, 10);
    assert.equal(recorder.ended, false);
    transport.close();
  });

  test("404 of another server: ends the connection", async (t) => {
    const { recorder, transport } = await sendCommand(t, 404, "");
    assert.equal((await recorder.end)[0], 1006);
    transport.close();
  });

  for (const status of [500, 503]) {
    test(`${status}: ends the connection`, async (t) => {
      const { recorder, transport } = await sendCommand(t, status, "");
      assert.deepEqual(await recorder.end, [1006, `command: HTTP ${status}`]);
      transport.close();
    });
  }

  test("a response that is not JSON: ends the connection", async (t) => {
    const { recorder, transport } = await sendCommand(t, 400, "<html>");
    assert.equal((await recorder.end)[0], 1006);
    transport.close();
  });

  test("are sent one after the other, so that they arrive in order", async (t) => {
    const held: ServerResponse[] = [];
    const { prefix, requests } = await serve(t, ({ method, url }, response) => {
      if (url.pathname === "/later") response.end();
      else if (method === "POST") held.push(response);
      else {
        beginStream(response);
        write(response, "bus.hello", { data: { session: "s-1" } });
      }
    });
    const commands = () => requests.filter(({ method }) => method === "POST").map(({ body }) => (JSON.parse(body) as { do: string }).do);
    const recorder = new RecordingListener();
    const transport = fetchEventSource(prefix)(COOKIES, recorder);
    await recorder.frameCount(1);
    const later = () => fetch(new URL("/later", prefix));
    transport.send({ do: "unsubscribe", topic: "user:42:a" });
    transport.send({ do: "subscribe", topic: "user:42:a" });
    while (!held.length) await later();
    await later();
    assert.deepEqual(commands(), ["unsubscribe"]);
    held[0]?.writeHead(202).end();
    while (held.length < 2) await later();
    assert.deepEqual(commands(), ["unsubscribe", "subscribe"]);
    transport.close();
  });
});
