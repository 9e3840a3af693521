import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Cursor, parseCursor, parsePosition } from "../../src/state/cursor.js";
import { isControlEvent, parseFrame } from "../../src/protocol/messages.js";
import { seededRandom, pick, SEEDS } from "../seeded_random.js";
import { golden } from "../golden.js";

interface CursorCase {
  readonly name: string;
  readonly text: string;
  readonly parsed: Record<string, { epoch: string | null; offset: number }> | null;
}

describe("the text of a cursor", () => {
  for (const { name, text, parsed } of golden<CursorCase>("cursors")) {
    test(name, () => {
      const places = parseCursor(text);
      if (!parsed) return assert.equal(places, undefined);
      const read = Object.fromEntries(Array.from(places ?? [], ([channel, { epoch, offset }]) => [channel, { epoch: epoch || null, offset }]));
      assert.deepEqual(read, parsed);
      assert.equal(new Cursor(places).toString(), text, "formats to the same text");
    });
  }

  test("is refused if it is too long", () => {
    const text = Array.from({ length: 200 }, (_, id) => `collection:${id}=5f3a9c01.${id}`).join();
    assert.ok(text.length > 4096);
    assert.equal(parseCursor(text), undefined);
  });

  test("a single position", () => {
    assert.deepEqual(parsePosition("5f.17"), { epoch: "5f", offset: 17 });
    assert.deepEqual(parsePosition("0"), { epoch: "", offset: 0 });
    for (const text of ["", "17", "5f", "5f.", ".17", "5f.017", "5f.1e3"]) assert.equal(parsePosition(text), undefined, text);
  });
});

interface Sequence {
  readonly name: string;
  readonly start: string;
  readonly steps: readonly { readonly frame: string; readonly delivered: boolean; readonly cursor: string }[];
}

function event(topic: string, offset: number, id = `id-${offset}`): { id: string; topic: string; offset: number } {
  return { id, topic, offset };
}

/** Applies a frame to the cursor, as the bus does. Returns whether the event is delivered. */
function applyFrame(cursor: Cursor, text: string): boolean {
  const frame = parseFrame(text);
  assert.ok(frame);
  if (!isControlEvent(frame)) return cursor.accept(frame);
  if (frame.type === "bus.hello") cursor.reconnected();
  else if (frame.type === "bus.subscribed") cursor.subscribed(frame.data);
  else if (frame.type === "bus.position") cursor.position(frame.data);
  else if (frame.type === "bus.hold") cursor.hold(frame.data);
  else if (frame.type === "bus.release") cursor.release(frame.data);
  return false;
}

describe("delivery and resume position", () => {
  for (const { name, start, steps } of golden<Sequence>("sequences")) {
    test(name, () => {
      const cursor = new Cursor(parseCursor(start));
      steps.forEach(({ frame, delivered, cursor: after }, step) => {
        assert.equal(applyFrame(cursor, frame), delivered, `step ${step}: ${frame}`);
        assert.equal(cursor.toString(), after, `step ${step}: ${frame}`);
      });
    });
  }

  test("control events of an unknown channel change nothing", () => {
    const cursor = new Cursor();
    const reached = { channel: "user:42", offset: 9 };
    cursor.position(reached);
    cursor.hold(reached);
    cursor.release(reached);
    assert.equal(cursor.toString(), "");
    assert.ok(cursor.accept(event("user:42:x", 1)));
  });

  test("another subscription does not end a hold", () => {
    const cursor = new Cursor(parseCursor("user:42=5f.17"));
    cursor.hold({ channel: "user:42", offset: 17 });
    assert.ok(cursor.accept(event("user:42:x", 25)));
    cursor.subscribed({ channel: "user:42", epoch: "5f", offset: 17, how: "resumed" });
    assert.ok(cursor.accept(event("user:42:y", 20)), "not received before");
    assert.ok(!cursor.accept(event("user:42:x", 25)), "received before");
    assert.equal(cursor.toString(), "user:42=5f.17");
  });
});

describe("length", () => {
  test("a short cursor keeps all channels", () => {
    const cursor = new Cursor(parseCursor("user:42=5f.17,system=0"));
    assert.deepEqual(cursor.truncate(), []);
    assert.equal(cursor.toString(), "user:42=5f.17,system=0");
  });

  test("a long cursor removes and returns its newest channels", () => {
    const places = Array.from({ length: 300 }, (_, id) => [`collection:${id}`, { epoch: "5f3a9c01", offset: id }] as const);
    const cursor = new Cursor(places);
    const removed = cursor.truncate();
    assert.ok(cursor.toString().length <= 4096);
    const kept = parseCursor(cursor.toString());
    assert.ok(kept);
    assert.ok(kept.has("collection:0"));
    assert.equal(kept.size + removed.length, 300);
    assert.deepEqual(removed[0], { channel: "collection:299", epoch: "5f3a9c01", offset: 299 });
  });
});

/**
 * A channel and a session that delivers out of order, disconnects and resumes as the protocol
 * allows.
 */
class ChannelModel {
  readonly topics: string[] = [];
  #queue: number[] = [];
  #deliveredUpTo = 0;
  #held = false;

  constructor(private readonly random: () => number) {}

  publish(): void {
    this.topics.push(`user:42:${pick(["a", "b", "c"], this.random)}`);
    this.#queue.push(this.topics.length);
  }

  /** Opens a new connection, which delivers all events above the cursor in order. */
  resume(cursor: Cursor): void {
    const from = parseCursor(cursor.toString())?.get("user:42");
    assert.ok(from);
    cursor.reconnected();
    cursor.subscribed({ channel: "user:42", epoch: "5f", offset: from.offset, how: "resumed" });
    this.#held = false;
    this.#deliveredUpTo = from.offset;
    this.#queue = this.topics.map((_, index) => index + 1).filter((offset) => offset > from.offset);
  }

  /** Delivers one event. While held, it may be the first event of any topic. */
  deliver(cursor: Cursor): number | undefined {
    if (!this.#held && this.#queue.length > 1 && this.random() < 0.2) {
      this.#held = true;
      cursor.hold({ channel: "user:42", offset: this.#deliveredUpTo });
    }
    const firsts = this.#queue.filter((offset, place) => this.#queue.findIndex((other) => this.topics[other - 1] === this.topics[offset - 1]) === place);
    const offset = this.#held ? firsts.length && pick(firsts, this.random) : this.#queue[0];
    if (!offset) return undefined;
    this.#queue = this.#queue.filter((other) => other !== offset);
    const accepted = cursor.accept(event(this.topics[offset - 1] ?? "", offset));
    this.#deliveredUpTo = (this.#queue[0] ?? this.topics.length + 1) - 1;
    if (this.#held && !this.#queue.length) {
      this.#held = false;
      cursor.release({ channel: "user:42", offset: this.#deliveredUpTo });
    }
    return accepted ? offset : undefined;
  }

  get idle(): boolean {
    return !this.#queue.length;
  }
}

test("random order and random disconnects: each event once, each topic in order", () => {
  for (const seed of SEEDS) {
    const random = seededRandom(seed);
    const cursor = new Cursor(parseCursor("user:42=5f.0"));
    const channel = new ChannelModel(random);
    const delivered: number[] = [];
    const deliver = (): void => {
      const offset = channel.deliver(cursor);
      if (offset !== undefined) delivered.push(offset);
    };
    channel.resume(cursor);
    for (let step = 0; step < 300; step++) {
      const die = random();
      if (die < 0.4) channel.publish();
      else if (die < 0.45) channel.resume(cursor);
      else deliver();
    }
    while (!channel.idle) deliver();

    const all = channel.topics.map((_, index) => index + 1);
    assert.deepEqual([...delivered].sort((one, other) => one - other), all, `seed ${seed}`);
    for (const topic of new Set(channel.topics)) {
      const ofTopic = delivered.filter((offset) => channel.topics[offset - 1] === topic);
      assert.deepEqual(ofTopic, [...ofTopic].sort((one, other) => one - other), `seed ${seed}, ${topic}`);
    }
    assert.equal(cursor.toString(), `user:42=5f.${channel.topics.length}`, `seed ${seed}`);
  }
});
