import assert from "node:assert/strict";
import { test } from "node:test";
import { Heartbeat } from "../../src/transport/heartbeat.js";
import { FakeClock } from "../fake_clock.js";

function startHeartbeat() {
  const clock = new FakeClock();
  const calls: string[] = [];
  const heartbeat = new Heartbeat(clock, 50_000, () => calls.push("probe"), () => calls.push("dead"));
  return { clock, calls, heartbeat };
}

test("without activity: a probe, then a timeout", async () => {
  const { clock, calls } = startHeartbeat();
  await clock.advance(49_999);
  assert.deepEqual(calls, []);
  await clock.advance(1);
  assert.deepEqual(calls, ["probe"]);
  await clock.advance(5_000);
  assert.deepEqual(calls, ["probe", "dead"]);
  assert.equal(clock.timers, 0);
});

test("activity postpones the probe", async () => {
  const { clock, calls, heartbeat } = startHeartbeat();
  for (let second = 0; second < 600; second++) {
    await clock.advance(1_000);
    heartbeat.activity();
  }
  assert.deepEqual(calls, []);
  assert.equal(clock.timers, 1, "activity starts no timer");
  await clock.advance(50_000);
  assert.deepEqual(calls, ["probe"]);
});

test("a reply to the probe counts as activity", async () => {
  const { clock, calls, heartbeat } = startHeartbeat();
  await clock.advance(50_000);
  heartbeat.activity();
  await clock.advance(49_999);
  assert.deepEqual(calls, ["probe"]);
  await clock.advance(1);
  assert.deepEqual(calls, ["probe", "probe"]);
  heartbeat.stop();
  await clock.advance(99_000);
  assert.deepEqual(calls, ["probe", "probe"]);
  assert.equal(clock.timers, 0);
});
