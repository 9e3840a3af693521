import assert from "node:assert/strict";
import { test } from "node:test";
import { Fallback } from "../../src/transport/fallback.js";

/** The next transports, if each attempt fails. */
function failing(fallback: Fallback, times: number): string {
  return Array.from({ length: times }, () => {
    const transport = fallback.next();
    fallback.failed();
    return transport === "sse" ? "s" : "w";
  }).join("");
}

test("WebSocket fails twice, then SSE and WebSocket alternate", () => {
  assert.equal(failing(new Fallback("auto"), 8), "wwswswsw");
});

test("WebSocket fails six times if one has opened before", () => {
  const fallback = new Fallback("auto");
  fallback.next();
  fallback.succeeded("websocket");
  assert.equal(failing(fallback, 9), "wwwwwwsws");
});

test("SSE stays when it works, and every fifth attempt tries WebSocket", () => {
  const fallback = new Fallback("auto");
  failing(fallback, 2);
  assert.equal(fallback.next(), "sse");
  fallback.succeeded("sse");
  assert.equal(failing(fallback, 10), "ssssw" + "ssssw");
});

test("a successful attempt with WebSocket ends SSE", () => {
  const fallback = new Fallback("auto");
  failing(fallback, 2);
  fallback.next();
  fallback.succeeded("sse");
  failing(fallback, 4);
  assert.equal(fallback.next(), "websocket");
  fallback.succeeded("websocket");
  assert.equal(failing(fallback, 6), "wwwwww");
});

test("a transport that the page chose does not change", () => {
  assert.equal(failing(new Fallback("websocket"), 9), "wwwwwwwww");
  assert.equal(failing(new Fallback("sse"), 9), "sssssssss");
});
