import assert from "node:assert/strict";
import test from "node:test";
import { DEFAULT_BACKOFF, fullJitter } from "../../src/transport/backoff.js";
import { seededRandom, SEEDS } from "../seeded_random.js";

test("the bound doubles from 500 ms to 20 s", () => {
  const almostOne = 1 - Number.EPSILON;
  const longest = [0, 1, 2, 3, 4, 5, 6, 7].map((failures) => Math.round(fullJitter(failures, almostOne, DEFAULT_BACKOFF)));
  assert.deepEqual(longest, [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]);
});

test("the shortest delay is zero", () => {
  assert.equal(fullJitter(9, 0, DEFAULT_BACKOFF), 0);
});

test("the delay stays within its bounds after any number of failures", () => {
  for (const seed of SEEDS) {
    const random = seededRandom(seed);
    const backoff = { minMs: random() * 1000, maxMs: random() * 60_000 };
    const wait = fullJitter(Math.floor(random() * 5000), random(), backoff);
    assert.ok(wait >= 0 && wait <= backoff.maxMs, `seed ${seed}: ${wait}`);
  }
});
