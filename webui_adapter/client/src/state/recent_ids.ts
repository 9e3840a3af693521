// Deduplication by event id. The protocol requires a client to remember this many ids.
const REMEMBERED_IDS = 1000;

/** A map of the newest ids. It drops the oldest id when it is full. */
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

  /** The values, the oldest id first. */
  values(): Iterable<Value> {
    return this.#ids.values();
  }
}

/** Removes the oldest id if there are more than `limit`. */
export function dropOldest(
  ids: { readonly size: number; keys(): IterableIterator<string>; delete(id: string): boolean },
  limit = REMEMBERED_IDS,
): void {
  if (ids.size > limit) ids.delete(ids.keys().next().value as string);
}
