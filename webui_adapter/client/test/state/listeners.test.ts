import assert from "node:assert/strict";
import { test } from "node:test";
import { Listeners } from "../../src/state/listeners.js";

test("in the order of adding, until taken away", () => {
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

test("nobody there", () => {
  const listeners = new Listeners();
  assert.ok(!listeners.call("a", 1));
  listeners.add("a", () => undefined)();
  assert.ok(!listeners.call("a", 1));
});

test("a listener that is added twice is called twice and taken away once", () => {
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

test("one that throws is reported and disturbs no other", (t) => {
  const reported = t.mock.method(console, "error", () => undefined);
  const listeners = new Listeners();
  const failure = new Error("the page's own");
  let calls = 0;
  listeners.add("a", () => {
    throw failure;
  });
  listeners.add("a", () => calls++);
  assert.ok(listeners.call("a", 1));
  assert.equal(calls, 1);
  assert.deepEqual(reported.mock.calls[0]?.arguments, [failure]);
});

test("one that is added while an event is delivered hears the next one", () => {
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

test("one that another has just taken away hears nothing more", () => {
  const listeners = new Listeners();
  const received: string[] = [];
  listeners.add("a", () => stop());
  const stop = listeners.add("a", () => received.push("after its end"));
  listeners.add("a", () => received.push("the last"));
  listeners.call("a", 1);
  assert.deepEqual(received, ["the last"]);
});
