// Events of operations that no listener of the operation has received. The client keeps them for a
// listener that registers later.
import type { ClockAndRandom } from "../clock_and_random.js";
import { operationOf } from "../protocol/topics.js";
import type { BusEvent } from "../types.js";
import { RecentIds } from "./recent_ids.js";

/** Bounds of the kept events. See `Options.lateListeners`. */
export interface KeptBounds {
  readonly operations: number;
  readonly events: number;
  readonly ms: number;
}

export const DEFAULT_KEPT_BOUNDS: KeptBounds = { operations: 200, events: 100, ms: 60_000 };

/** Events of one operation by id, in order of arrival. */
type Events = Map<string, BusEvent> & { time?: number };

export class KeptEvents {
  readonly #clock: ClockAndRandom;
  readonly #bounds: KeptBounds;
  // The operation without an event for the longest time is first.
  readonly #kept = new Map<string, Events>();
  /** By operation: a topic and the types of dropped events, each with a space after it. */
  readonly #dropped = new RecentIds<string>();

  /** @param stored - `EventBus.stored` of an earlier page. This page does not have those events. */
  constructor(clock: ClockAndRandom, bounds: KeptBounds, stored: string) {
    this.#clock = clock;
    this.#bounds = bounds;
    for (const line of stored.split("\n")) {
      const [topic = "", ...types] = line.split(" ");
      for (const type of types) this.#drop(topic, type);
    }
  }

  /** Kept and dropped events, for the page after a reload: topics, each with its event types. */
  get lines(): string[] {
    const lines = new Set(this.#dropped.values());
    for (const events of this.#kept.values()) for (const { topic, type } of events.values()) lines.add(`${topic} ${type}`);
    return [...lines];
  }

  /** The events of an operation. The caller removes those that a listener has received. */
  get(operation: string): Events | undefined {
    return this.#kept.get(operation);
  }

  set(operation: string, event: BusEvent): void {
    const events: Events = this.#kept.get(operation) ?? new Map<string, BusEvent>();
    events.time = this.#clock.now();
    this.#kept.delete(operation);
    // A second delivery of an event replaces the first.
    this.#kept.set(operation, events.set(event.id, event));
    this.#trim(events, this.#bounds.events);
    this.#evict();
  }

  /**
   * Returns and forgets what was dropped of an operation, if a listener for `name` misses it. The
   * result is a topic and event types, each with a space after it.
   */
  takeDropped(operation: string, name: string): string | undefined {
    const dropped = this.#dropped.get(operation);
    if (!dropped?.includes(name === "*" ? "" : ` ${name} `)) return undefined;
    this.#dropped.delete(operation);
    return dropped;
  }

  #evict(): void {
    for (const [operation, events] of this.#kept) {
      if (this.#kept.size <= this.#bounds.operations && this.#clock.now() - (events.time ?? 0) < this.#bounds.ms) return;
      this.#trim(events, 0);
      this.#kept.delete(operation);
    }
  }

  #trim(events: Events, limit: number): void {
    for (const [id, { topic, type }] of events) {
      if (events.size <= limit) return;
      events.delete(id);
      this.#drop(topic, type);
    }
  }

  #drop(topic: string, type: string): void {
    const operation = operationOf(topic) ?? "";
    const dropped = this.#dropped.get(operation) ?? `${topic} `;
    this.#dropped.set(operation, dropped.includes(` ${type} `) ? dropped : `${dropped}${type} `);
  }
}
