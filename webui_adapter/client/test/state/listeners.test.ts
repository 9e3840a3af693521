import assert from "node:assert/strict";
import { test } from "node:test";
import { Listeners } from "../../src/state/listeners.js";

test("listeners run in the order of adding, until they are removed", () => {
  const listeners = new Listeners();
  const received: string[] = [];
  const stop = listeners.add("a", (event: string) => received.push(`first ${event}`));
  listeners.add("a", (event: string) => received.push(`second ${event}`));
  assert.ok(listeners.call("a", 1));
  stop();
  stop();
  listeners.call("a", 2);
  assert.deepEqual(received, ["first 1", "second 1", "second 2"]);
});

test("a name without listeners", () => {
  const listeners = new Listeners();
  assert.ok(!listeners.call("a", 1));
  listeners.add("a", () => undefined)();
  assert.ok(!listeners.call("a", 1));
});

test("a listener that is added twice runs twice and is removed once", () => {
  const listeners = new Listeners();
  let calls = 0;
  const listener = () => calls++;
  const stop = listeners.add("a", listener);
  listeners.add("a", listener);
  listeners.call("a", 1);
  assert.equal(calls, 2);
  stop();
  listeners.call("a", 1);
  assert.equal(calls, 3);
});

test("the error of a listener is reported, and the others run", (t) => {
  const reported = t.mock.method(console, "error", () => undefined);
  const listeners = new Listeners();
  const failure = new Error("a bug of the page");
  let calls = 0;
  listeners.add("a", () => {
    throw failure;
  });
  listeners.add("a", () => calls++);
  assert.ok(listeners.call("a", 1));
  assert.equal(calls, 1);
  assert.deepEqual(reported.mock.calls[0]?.arguments, [failure]);
});

test("a listener that is added during a delivery receives the next event", () => {
  const listeners = new Listeners();
  const received: unknown[] = [];
  const stop = listeners.add("a", () => {
    stop();
    listeners.add("a", (event) => received.push(event));
  });
  listeners.call("a", 1);
  listeners.call("a", 2);
  assert.deepEqual(received, [2]);
});

test("a listener that another one removed does not run", () => {
  const listeners = new Listeners();
  const received: string[] = [];
  listeners.add("a", () => stop());
  const stop = listeners.add("a", () => received.push("removed"));
  listeners.add("a", () => received.push("last"));
  listeners.call("a", 1);
  assert.deepEqual(received, ["last"]);
});
