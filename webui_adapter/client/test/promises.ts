import assert from "node:assert/strict";
import { BusError } from "../src/protocol/errors.js";
import { flushPromises } from "./fake_clock.js";

export function isRefusal(code: string, more: object = {}) {
  return (error: unknown) => {
    assert.ok(error instanceof BusError);
    assert.equal(error.code, code);
    for (const [member, value] of Object.entries(more)) assert.equal(error[member as keyof BusError], value);
    return true;
  };
}

/** The present outcome of a promise: "resolved", the code of its error, or "pending". */
export function outcome(promise: Promise<unknown>): Promise<string> {
  const settled = promise.then(() => "resolved", (error: unknown) => (error as BusError).code);
  return Promise.race([settled, flushPromises().then(() => "pending")]);
}
