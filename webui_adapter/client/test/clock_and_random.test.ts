import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { systemClock } from "../src/clock_and_random.js";

const HOUR = 3_600_000;

function machine(): { steady: number; calendar: number } {
  const clocks = { steady: 1_000, calendar: 10 * HOUR };
  mock.method(performance, "now", () => clocks.steady);
  mock.method(Date, "now", () => clocks.calendar);
  systemClock.now();
  return clocks;
}

test("the clock advances while the calendar is set back", () => {
  const clocks = machine();
  const before = systemClock.now();
  clocks.calendar -= HOUR;
  clocks.steady += 40;
  assert.equal(systemClock.now() - before, 40);
  clocks.calendar += 60;
  clocks.steady += 60;
  assert.equal(systemClock.now() - before, 100);
  mock.restoreAll();
});

test("the clock counts the time for which the machine slept", () => {
  const clocks = machine();
  const before = systemClock.now();
  clocks.calendar += HOUR;
  clocks.steady += 40;
  assert.equal(systemClock.now() - before, HOUR);
  mock.restoreAll();
});
