import type { ClockAndRandom } from "../clock_and_random.js";

const ANSWER_TIMEOUT_MS = 5_000;

/**
 * Finds a connection dead that nobody closed, as when the Wi-Fi is gone: a browser does not show the
 * server's pings to the page. After `quietMs` of nothing it asks `probe` to provoke an answer; if nothing
 * comes then either, the line is `dead`. A sign of life costs no timer, only a look at the clock.
 */
export class Heartbeat {
  #lastActivity: number;
  #cancelTimer: () => void;

  constructor(
    private readonly clock: ClockAndRandom,
    private readonly idleTimeoutMs: number,
    private readonly onIdle: () => void,
    private readonly onTimeout: () => void,
  ) {
    this.#lastActivity = clock.now();
    this.#cancelTimer = this.#checkAfter(idleTimeoutMs);
  }

  activity(): void {
    this.#lastActivity = this.clock.now();
  }

  stop(): void {
    this.#cancelTimer();
  }

  #checkAfter(ms: number): () => void {
    return this.clock.setTimer(ms, () => this.#check());
  }

  #check(): void {
    const idleMs = this.clock.now() - this.#lastActivity;
    if (idleMs < this.idleTimeoutMs) this.#cancelTimer = this.#checkAfter(this.idleTimeoutMs - idleMs);
    else this.#probe();
  }

  #probe(): void {
    const before = this.#lastActivity;
    this.#cancelTimer = this.clock.setTimer(ANSWER_TIMEOUT_MS, () => {
      if (this.#lastActivity === before) this.onTimeout();
      else this.#check();
    });
    this.onIdle();
  }
}
