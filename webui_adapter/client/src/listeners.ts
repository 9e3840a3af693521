// Who listens to what. One listener's failure is reported and disturbs no other.

// What a name is heard with is the business of whoever adds and calls; see `Heard`.
type Listener = (event: never) => void;

export class Listeners {
  readonly #byName = new Map<string, Set<Listener>>();

  add(name: string, listener: Listener): () => void {
    // A function of our own, so that a listener added twice is called twice and removed once.
    const entry: Listener = (event) => listener(event);
    const entries = this.#byName.get(name) ?? new Set<Listener>();
    this.#byName.set(name, entries.add(entry));
    return () => entries.delete(entry);
  }

  /** Whether anybody was there. */
  call(name: string, event: unknown): boolean {
    const entries = this.#byName.get(name);
    if (!entries?.size) return false;
    // A copy: whoever is added by a listener hears the next event, not this one.
    for (const entry of [...entries]) {
      try {
        entry(event as never);
      } catch (error) {
        report(error);
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
