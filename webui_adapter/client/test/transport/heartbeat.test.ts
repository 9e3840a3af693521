import assert from "node:assert/strict";
import { test } from "node:test";
import { Heartbeat } from "../../src/transport/heartbeat.js";
import { FakeWorld } from "../fake_clock.js";

function watched() {
  const world = new FakeWorld();
  const said: string[] = [];
  const liveness = new Heartbeat(world, 50_000, () => said.push("probe"), () => said.push("dead"));
  return { world, said, liveness };
}

test("silence is asked about, then taken for death", async () => {
  const { world, said } = watched();
  await world.pass(49_999);
  assert.deepEqual(said, []);
  await world.pass(1);
  assert.deepEqual(said, ["probe"]);
  await world.pass(5_000);
  assert.deepEqual(said, ["probe", "dead"]);
  assert.equal(world.timers, 0);
});

test("a sign of life puts the question off", async () => {
  const { world, said, liveness } = watched();
  for (let second = 0; second < 600; second++) {
    await world.pass(1_000);
    liveness.activity();
  }
  assert.deepEqual(said, []);
  assert.equal(world.timers, 1, "without a timer each");
  await world.pass(50_000);
  assert.deepEqual(said, ["probe"]);
});

test("an answer to the question will do", async () => {
  const { world, said, liveness } = watched();
  await world.pass(50_000);
  liveness.activity();
  await world.pass(49_999);
  assert.deepEqual(said, ["probe"]);
  await world.pass(1);
  assert.deepEqual(said, ["probe", "probe"]);
  liveness.stop();
  await world.pass(99_000);
  assert.deepEqual(said, ["probe", "probe"]);
  assert.equal(world.timers, 0);
});
