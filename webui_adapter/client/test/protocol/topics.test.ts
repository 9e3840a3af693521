import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { channelOf, isChannel, operationOf, isPattern, isTopic, matches } from "../../src/protocol/topics.js";
import { golden } from "../golden.js";

describe("names", () => {
  for (const { name, text, kind, channel } of golden<{ name: string; text: string; kind: string; channel: string | null }>("names")) {
    test(`${kind}: ${name}`, () => {
      assert.equal(isChannel(text), kind === "channel");
      assert.equal(isTopic(text), kind === "topic");
      assert.equal(isPattern(text), kind === "topic" || kind === "pattern");
      if (channel !== null) assert.equal(channelOf(text), channel);
    });
  }
});

describe("matches", () => {
  for (const { pattern, topic, matches: expected } of golden<{ pattern: string; topic: string; matches: boolean }>("matches")) {
    test(`${pattern} ${expected ? "matches" : "does not match"} ${topic}`, () => assert.equal(matches(pattern, topic), expected));
  }
});

test("operationOf returns the id of topics that end in operation:{id}", () => {
  assert.equal(operationOf("user:42:operation:9"), "9");
  assert.equal(operationOf("collection:7:documents:operation:9"), "9");
  assert.equal(operationOf("system:operation:9"), "9");
  assert.notEqual(operationOf("user:42:operation:90"), "9");
  assert.notEqual(operationOf("user:42:operation:9:log"), "9");
  assert.notEqual(operationOf("user:42:reoperation:9"), "9");
  assert.equal(operationOf("user:operation:9"), undefined, "a user with the id operation");
});
