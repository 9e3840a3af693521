import assert from "node:assert/strict";
import test from "node:test";
import { type Action, actionFor } from "../../src/protocol/close_codes.js";
import { golden } from "../golden.js";

for (const { name, code, action } of golden<{ name: string; code: number; action: Action }>("closecodes")) {
  test(`${code}, ${name}: ${action}`, () => assert.equal(actionFor(code), action));
}

test("HTTP statuses of an SSE request have an action", () => {
  const actions = [400, 401, 403, 404, 429, 500, 502, 503].map((status) => `${status} ${actionFor(status)}`);
  assert.deepEqual(actions, [
    "400 stop",
    "401 refresh",
    "403 stop",
    "404 reconnect",
    "429 reconnect",
    "500 reconnect",
    "502 reconnect",
    "503 reconnect",
  ]);
});

test("codes without a definition: reconnect", () => {
  for (const code of [1004, 1010, 1014, 1015, 3000, 4200, 4499, 4600, 4999]) assert.equal(actionFor(code), "reconnect");
});
