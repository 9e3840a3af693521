import assert from "node:assert/strict";
import { test } from "node:test";
import { TokenRefresh } from "../../src/transport/token_refresh.js";
import { FakeWorld } from "../fake_clock.js";

const never = (error: unknown): void => assert.fail(String(error));

test("at four fifths of each token's life", async () => {
  const world = new FakeWorld();
  const times: number[] = [];
  const lives = [20_000, undefined, 5_000];
  const start = world.now();
  new TokenRefresh(world, 10_000, () => {
    times.push(world.now() - start);
    return Promise.resolve(lives.shift());
  }, never);
  await world.pass(45_000);
  assert.deepEqual(times, [8_000, 24_000, 40_000, 44_000]);
});

test("failures come closer together until there is no time left", async () => {
  const world = new FakeWorld();
  const failures: unknown[] = [];
  new TokenRefresh(world, 10_000, () => Promise.reject(new Error("away")), (error) => failures.push(error));
  await world.pass(100_000);
  assert.equal(failures.length, 3);
  assert.equal(world.timers, 0);
});

test("once stopped, neither a late answer nor a late failure counts", async () => {
  for (const late of [() => Promise.resolve(10_000), () => Promise.reject(new Error("away"))]) {
    const world = new FakeWorld();
    const renewal = new TokenRefresh(world, 10_000, async () => {
      renewal.stop();
      return late();
    }, never);
    await world.pass(100_000);
    assert.equal(world.timers, 0);
  }
});

test("a token that is about to end is not renewed", () => {
  const world = new FakeWorld();
  new TokenRefresh(world, 50, () => assert.fail(), never);
  assert.equal(world.timers, 0);
});
