// Who listens to what. One listener's failure is reported and disturbs no other.

// What a name is heard with is the business of whoever adds and calls; see `Heard`.
type Listener = (event: never) => unknown;

/** Of a listener that an event does not concern. */
export const NOT_HANDLED = Symbol();
/** Of one that failed, which has been reported. */
export const FAILED = Symbol();

export class Listeners {
  readonly #byName = new Map<string, Set<Listener>>();

  add(name: string, listener: Listener): () => void {
    // A function of our own, so that a listener added twice is called twice and removed once.
    const entry: Listener = (event) => listener(event);
    const entries = this.#byName.get(name) ?? new Set<Listener>();
    this.#byName.set(name, entries.add(entry));
    return () => entries.delete(entry);
  }

  /** Whether anybody was there. What they returned goes into `results`; see `FAILED`. */
  call(name: string, event: unknown, results: unknown[] = []): boolean {
    const entries = this.#byName.get(name);
    if (!entries?.size) return false;
    // A copy: whoever is added by a listener hears the next event, not this one.
    for (const entry of [...entries]) {
      // Taken away by one before it: whoever ends a part of the page ends what it listens to.
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

/** As an uncaught error would be seen, without ending what is under way. */
export function report(error: unknown): void {
  if (typeof reportError === "function") reportError(error);
  else console.error(error);
}
