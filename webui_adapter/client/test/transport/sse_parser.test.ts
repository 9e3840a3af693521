import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type SseEvent, SseParser } from "../../src/transport/sse_parser.js";
import { seededRandom, SEEDS } from "../seeded_random.js";
import { golden } from "../golden.js";

interface SseCase {
  readonly name: string;
  readonly chunk: string;
  readonly events: readonly SseEvent[];
}

const CASES = golden<SseCase>("sse").map(({ name, chunk, events }) => ({
  name,
  // The transport's decoder removes a byte order mark.
  chunk: new TextDecoder().decode(new TextEncoder().encode(chunk)),
  // The client keeps the cursor itself, so the parser returns no ids.
  events: events.map(({ event, data }) => ({ event, data })),
}));

function parse(pieces: readonly string[]): SseEvent[] {
  const parser = new SseParser();
  return pieces.flatMap((piece) => parser.push(piece));
}

describe("one chunk", () => {
  for (const { name, chunk, events } of CASES) test(name, () => assert.deepEqual(parse([chunk]), events));
});

describe("two chunks, split at each position", () => {
  for (const { name, chunk, events } of CASES) {
    test(name, () => {
      for (let place = 0; place <= chunk.length; place++) {
        assert.deepEqual(parse([chunk.slice(0, place), chunk.slice(place)]), events, `at ${place}`);
      }
    });
  }
});

describe("chunks of one character", () => {
  for (const { name, chunk, events } of CASES) test(name, () => assert.deepEqual(parse(chunk.split("")), events));
});

test("chunks of random length", () => {
  for (const seed of SEEDS) {
    const random = seededRandom(seed);
    for (const { name, chunk, events } of CASES) {
      const pieces: string[] = [];
      for (let from = 0; from < chunk.length; ) {
        const length = Math.floor(random() * 40);
        pieces.push(chunk.slice(from, from + length));
        from += length;
      }
      assert.deepEqual(parse(pieces), events, `${name}, seed ${seed}`);
    }
  }
});

test("an event is complete at its empty line", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.push("data: x\n"), []);
  assert.equal(parser.push("\n").length, 1);
});
