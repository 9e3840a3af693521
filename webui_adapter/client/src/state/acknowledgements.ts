// Events that must reach a person: given to listeners once each, acknowledged when those are done.
import type { BusError } from "../protocol/errors.js";
import { FAILED, report, NOT_HANDLED } from "./listeners.js";
import { dropOldest, RecentIds } from "./recent_ids.js";
import type { ClockAndRandom } from "../clock_and_random.js";

const BATCH_SIZE = 100;
const BATCH_DELAY_MS = 20;

export class Acknowledgements {
  readonly #states = new RecentIds<"busy" | "done">();
  /** Waiting to be sent, or for an answer. */
  readonly #unconfirmed = new Set<string>();
  #cancelTimer: (() => void) | undefined;
  /** One command at a time: on a slow line each would be sent again and again before its answer. */
  #inFlight = false;

  constructor(
    private readonly clock: ClockAndRandom,
    /** Sends the command; settles with its answer. */
    private readonly send: (ids: readonly string[]) => Promise<unknown>,
  ) {}

  /**
   * An event has come. `seen`: the page began beyond it, so it was handed over before. `give` calls the listeners and
   * says what they returned. What nobody hears, or a listener fails at, is not acknowledged: it comes again.
   */
  handle(id: string, handled: boolean, deliver: () => readonly unknown[], local: boolean): void {
    const state = this.#states.get(id);
    if (state === "busy") return;
    if (handled || state) {
      this.#acknowledge(id);
      return;
    }
    this.#states.set(id, "busy");
    Promise.all(deliver()).then(
      (results) => {
        if (results.includes(FAILED) || results.every((result) => result === NOT_HANDLED)) {
          this.#states.delete(id);
          return;
        }
        this.#states.set(id, "done");
        // A local one is not in any list yet; it will be acknowledged when it comes with its place.
        if (!local) this.#acknowledge(id);
      },
      (error: unknown) => {
        this.#states.delete(id);
        report(error);
      },
    );
  }

  /** There is a connection, or it can write again: what has not been confirmed is said once more. */
  resend(): void {
    this.#sendAfter(0);
  }

  close(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #acknowledge(id: string): void {
    this.#unconfirmed.add(id);
    // What is let go here comes again, and is acknowledged then.
    dropOldest(this.#unconfirmed);
    this.#sendAfter(BATCH_DELAY_MS);
  }

  #sendAfter(ms: number): void {
    if (this.#inFlight || !this.#unconfirmed.size) return;
    this.#cancelTimer ??= this.clock.setTimer(ms, () => {
      this.#cancelTimer = undefined;
      const ids = [...this.#unconfirmed].slice(0, BATCH_SIZE);
      this.#inFlight = true;
      this.send(ids).then(
        () => {
          this.#inFlight = false;
          for (const id of ids) this.#unconfirmed.delete(id);
          this.#sendAfter(0);
        },
        (error: unknown) => {
          this.#inFlight = false;
          const { code, retryMs } = error as BusError;
          // Without a connection the next one says it.
          if (code === "lost" || code === "closed") return;
          // Refused without a word of when to try again: so it would be the next time.
          if (!retryMs) for (const id of ids) this.#unconfirmed.delete(id);
          this.#sendAfter(retryMs ?? 0);
        },
      );
    });
  }
}
