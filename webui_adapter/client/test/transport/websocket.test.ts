// The messages of a WebSocket. The browser tests use a real one.
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { webSocketTransport } from "../../src/transport/websocket.js";
import { golden } from "../golden.js";

class FakeSocket {
  static last: FakeSocket | undefined;
  readonly sent: unknown[] = [];
  closedWith: number | undefined;
  onopen: () => void = () => undefined;
  onmessage: (event: { data: string }) => void = () => undefined;
  onclose: (event: { code: number; reason: string }) => void = () => undefined;

  constructor(
    readonly url: URL,
    readonly protocol: string,
  ) {
    FakeSocket.last = this;
  }
  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  close(code: number): void {
    this.closedWith = code;
  }
}

function opened(t: TestContext, token: string | undefined, cursor: string, topics: string[]) {
  const present = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  Object.defineProperty(globalThis, "WebSocket", { value: FakeSocket, configurable: true });
  t.after(() => Object.defineProperty(globalThis, "WebSocket", present ?? { value: undefined, configurable: true }));
  const calls: unknown[] = [];
  const transport = webSocketTransport(new URL("https://app.example/eventbus"))(
    { token, cursor, topics },
    { onActivity: () => calls.push("alive"), onFrame: (text) => calls.push(text), onClose: (...end) => calls.push(end) },
  );
  return { transport, calls, socket: FakeSocket.last ?? assert.fail() };
}

test("with a token: the first message carries all, the URL nothing", (t) => {
  const cases = golden<{ name: string; parsed: unknown }>("commands");
  const { socket } = opened(t, "head.payload.signature", "user:42=5f3a9c01.17,system=0", ["collection:7:*"]);
  assert.equal(socket.url.href, "wss://app.example/eventbus/ws");
  assert.equal(socket.protocol, "eventbus.v1");
  assert.deepEqual(socket.sent, []);
  socket.onopen();
  assert.deepEqual(socket.sent, [cases.find(({ name }) => name === "auth, first")?.parsed]);
});

test("with cookies: the URL carries all, and there is no first message", (t) => {
  const { socket } = opened(t, undefined, "user:42=5f.17", ["collection:7:*"]);
  assert.equal(socket.url.search, "?cursor=user%3A42%3D5f.17&topic=collection%3A7%3A*");
  socket.onopen();
  assert.deepEqual(socket.sent, []);
});

test("frames, close by the gateway, close by the client", (t) => {
  const { socket, calls, transport } = opened(t, undefined, "", []);
  socket.onmessage({ data: "frame" });
  socket.onclose({ code: 4000, reason: "drain" });
  assert.deepEqual(calls, ["frame", [4000, "drain"]]);
  transport.send({ do: "ping" });
  assert.deepEqual(socket.sent, [{ do: "ping" }]);
  transport.close();
  assert.equal(socket.closedWith, 1000);
});
