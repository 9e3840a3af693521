import assert from "node:assert/strict";
import { test } from "node:test";
import { TokenRefresh } from "../../src/transport/token_refresh.js";
import { FakeClock } from "../fake_clock.js";

const never = (error: unknown): void => assert.fail(String(error));

test("refreshes at 80 % of each lifetime", async () => {
  const clock = new FakeClock();
  const times: number[] = [];
  const lifetimes = [20_000, undefined, 5_000];
  const start = clock.now();
  new TokenRefresh(clock, 10_000, () => {
    times.push(clock.now() - start);
    return Promise.resolve(lifetimes.shift());
  }, never);
  await clock.advance(45_000);
  assert.deepEqual(times, [8_000, 24_000, 40_000, 44_000]);
});

test("repeats a failed refresh in shorter intervals until the token expires", async () => {
  const clock = new FakeClock();
  const failures: unknown[] = [];
  new TokenRefresh(clock, 10_000, () => Promise.reject(new Error("down")), (error) => failures.push(error));
  await clock.advance(100_000);
  assert.equal(failures.length, 3);
  assert.equal(clock.timers, 0);
});

test("ignores late results after stop", async () => {
  for (const late of [() => Promise.resolve(10_000), () => Promise.reject(new Error("down"))]) {
    const clock = new FakeClock();
    const refresh = new TokenRefresh(clock, 10_000, async () => {
      refresh.stop();
      return late();
    }, never);
    await clock.advance(100_000);
    assert.equal(clock.timers, 0);
  }
});

test("does not refresh a token that expires immediately", () => {
  const clock = new FakeClock();
  new TokenRefresh(clock, 50, () => assert.fail(), never);
  assert.equal(clock.timers, 0);
});
