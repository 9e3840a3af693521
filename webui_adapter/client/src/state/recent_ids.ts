// As many ids as the protocol asks to remember.
const REMEMBERED_IDS = 1000;

/** The newest ids, and what is known of each. */
export class RecentIds<Value> {
  readonly #ids = new Map<string, Value>();

  get(id: string): Value | undefined {
    return this.#ids.get(id);
  }

  set(id: string, value: Value): void {
    this.#ids.delete(id);
    this.#ids.set(id, value);
    dropOldest(this.#ids);
  }

  delete(id: string): void {
    this.#ids.delete(id);
  }
}

/** Lets the oldest go. */
export function dropOldest(ids: { readonly size: number; keys(): Iterable<string>; delete(id: string): boolean }): void {
  if (ids.size <= REMEMBERED_IDS) return;
  for (const oldest of ids.keys()) {
    ids.delete(oldest);
    return;
  }
}
