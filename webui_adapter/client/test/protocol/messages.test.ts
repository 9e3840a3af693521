import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { isControlEvent, parseFrame } from "../../src/protocol/messages.js";
import { golden } from "../golden.js";

interface FrameCase {
  readonly name: string;
  readonly frame: string;
  readonly parsed: unknown;
}

describe("frames of the gateway", () => {
  for (const [file, control] of [["events", false], ["words", true]] as const) {
    for (const { name, frame, parsed } of golden<FrameCase>(file)) {
      test(`${file}: ${name}`, () => {
        const read = parseFrame(frame);
        assert.ok(read);
        assert.deepEqual(read, parsed);
        assert.equal(isControlEvent(read), control);
      });
    }
  }
});

describe("text that is not a frame", () => {
  for (const text of ["", "{", "null", "17", '"text"', "[]", "{}", '{"type":7}', '{"type":"a.b"}', '{"topic":"user:42:x"}']) {
    test(text || "empty", () => assert.equal(parseFrame(text), undefined));
  }
});

describe("golden cases are consistent", () => {
  test("a frame is one line", () => {
    for (const file of ["events", "words", "commands"]) {
      for (const { name, frame } of golden<FrameCase>(file)) assert.ok(!frame.includes("\n"), name);
    }
  });

  test("a refused command has a code, an accepted one has members", () => {
    for (const { name, frame, parsed, error } of golden<FrameCase & { error: string | null }>("commands")) {
      assert.equal(parsed === null, error !== null, name);
      if (parsed) assert.deepEqual(JSON.parse(frame), parsed, name);
    }
  });

  interface Publication {
    readonly name: string;
    readonly publication: string;
    readonly parsed: { epoch: string; before: number; records: Record<string, unknown>[] };
  }
  for (const { name, publication, parsed } of golden<Publication>("publications")) {
    test(`publication: ${name}`, () => {
      const [head = "", ...lines] = publication.split("\n");
      const [epoch, before] = head.split(" ");
      assert.deepEqual([epoch, Number(before)], [parsed.epoch, parsed.before]);
      const records = [];
      for (let line = 0; line < lines.length; line += 2) records.push(record(lines[line] ?? "", lines[line + 1] ?? ""));
      assert.deepEqual(records, parsed.records);
      records.forEach(({ offset, event }, place) => {
        assert.equal(offset, parsed.before + 1 + place);
        assert.equal((JSON.parse(event) as { offset: number }).offset, offset);
      });
    });
  }
});

function record(header: string, event: string) {
  const [offset, lane, keep, expires, emitted, type, topic, ...key] = header.split(" ");
  const whole = key.join(" ");
  return {
    offset: Number(offset), lane, keep, expires_ms: Number(expires), emitted_us: Number(emitted), type, topic,
    key: whole === "-" ? null : whole, event,
  };
}
