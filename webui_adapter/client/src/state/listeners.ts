// Listeners by event name. If one listener fails, the error is reported and the others still run.

import type { BusEvent } from "../types.js";

// The type of the event depends on the name; see `Heard`. The callers of `add` and `call` ensure
// it.
type Listener = (event: never) => unknown;

/** The result of a listener that ignored the event. */
export const NOT_HANDLED = Symbol();
/** The result of a listener that failed. Its error has been reported. */
export const FAILED = Symbol();

export class Listeners {
  readonly #byName = new Map<string, Set<Listener>>();

  /** Adds a listener. Returns a function that removes it. */
  add(name: string, listener: Listener): () => void {
    // The wrapper makes each registration distinct: a listener can be added twice and removed once.
    const entry: Listener = (event) => listener(event);
    const entries = this.#byName.get(name) ?? new Set<Listener>();
    this.#byName.set(name, entries.add(entry));
    return () => entries.delete(entry);
  }

  /** Calls the listeners for the type of the event, then those for `*`. Returns their results. */
  deliver(event: BusEvent): unknown[] {
    const results: unknown[] = [];
    this.call(event.type, event, results);
    this.call("*", event, results);
    return results;
  }

  /**
   * Calls the listeners and appends their results to `results`. Returns false if there are none.
   */
  call(name: string, event: unknown, results: unknown[] = []): boolean {
    const entries = this.#byName.get(name);
    if (!entries?.size) return false;
    // The copy excludes listeners that are added during this call. They receive the next event.
    for (const entry of [...entries]) {
      // An earlier listener may have removed this one.
      if (!entries.has(entry)) continue;
      try {
        results.push(entry(event as never));
      } catch (error) {
        report(error);
        results.push(FAILED);
      }
    }
    return true;
  }
}

/** Reports an error as an uncaught error, without throwing it. */
export function report(error: unknown): void {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}
