// Acknowledgements of events with `ack`. Listeners receive each event once. The client acknowledges
// it when all listeners have finished.
import type { ClockAndRandom } from "../clock_and_random.js";
import type { BusError } from "../protocol/errors.js";
import { FAILED, NOT_HANDLED, report } from "./listeners.js";
import { dropOldest, RecentIds } from "./recent_ids.js";

const BATCH_SIZE = 100;
const BATCH_DELAY_MS = 20;

export class Acknowledgements {
  readonly #states = new RecentIds<"busy" | "done">();
  /** Ids to acknowledge that the gateway has not confirmed. */
  readonly #unconfirmed = new Set<string>();
  #cancelTimer: (() => void) | undefined;
  /** Only one `ack` command is in flight: on a slow connection later ones would repeat its ids. */
  #inFlight = false;
  readonly #clock: ClockAndRandom;
  readonly #send: (ids: readonly string[]) => Promise<unknown>;

  /** @param send - Sends one `ack` command. The promise settles with the gateway's reply. */
  constructor(clock: ClockAndRandom, send: (ids: readonly string[]) => Promise<unknown>) {
    this.#clock = clock;
    this.#send = send;
  }

  /**
   * Handles a received event with `ack`.
   *
   * An event stays unacknowledged if it has no listener or if a listener fails. The gateway then
   * delivers it again.
   *
   * @param handled - The page's initial cursor covers the event, so an earlier page handled it.
   * @param deliver - Calls the listeners and returns their results.
   * @param local - The event has no offset. The gateway sends it again with one.
   */
  handle(id: string, handled: boolean, deliver: () => readonly unknown[], local: boolean): void {
    const state = this.#states.get(id);
    if (state === "busy") return;
    if (handled || state) {
      this.#acknowledge(id);
      return;
    }
    this.#states.set(id, "busy");
    const outcomes = deliver();
    if (outcomes.every((result) => result === NOT_HANDLED)) {
      this.#states.delete(id);
      return;
    }
    Promise.all(outcomes).then(
      (results) => {
        if (results.includes(FAILED)) {
          this.#states.delete(id);
          return;
        }
        this.#states.set(id, "done");
        // A local event is not in a pending list yet. The copy with an offset is acknowledged.
        if (!local) this.#acknowledge(id);
      },
      (error: unknown) => {
        this.#states.delete(id);
        report(error);
      },
    );
  }

  /** Sends all unconfirmed ids: after a reconnect, or when the gateway can write again. */
  resend(): void {
    this.#sendAfter(0);
  }

  close(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #acknowledge(id: string): void {
    this.#unconfirmed.add(id);
    // The gateway delivers a dropped event again, and the client acknowledges it then.
    dropOldest(this.#unconfirmed);
    this.#sendAfter(BATCH_DELAY_MS);
  }

  #sendAfter(ms: number): void {
    if (this.#inFlight || !this.#unconfirmed.size) return;
    this.#cancelTimer ??= this.#clock.setTimer(ms, () => {
      this.#cancelTimer = undefined;
      const ids = [...this.#unconfirmed].slice(0, BATCH_SIZE);
      this.#inFlight = true;
      this.#send(ids).then(
        () => {
          this.#inFlight = false;
          for (const id of ids) this.#unconfirmed.delete(id);
          this.#sendAfter(0);
        },
        (error: unknown) => {
          this.#inFlight = false;
          const { code, retryMs } = error as BusError;
          // The next connection sends the ids again.
          if (code === "lost" || code === "closed") return;
          // A refusal without a retry time is final: the gateway would refuse these ids again.
          if (!retryMs) for (const id of ids) this.#unconfirmed.delete(id);
          this.#sendAfter(retryMs ?? 0);
        },
      );
    });
  }
}
