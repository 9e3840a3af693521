import type { ClockAndRandom } from "../clock_and_random.js";

const ANSWER_TIMEOUT_MS = 5_000;

/**
 * Detects a dead connection that neither side closed, such as after a loss of Wi-Fi.
 *
 * A browser does not show the server's WebSocket pings to the page. After `idleTimeoutMs` without
 * activity the heartbeat calls `onIdle`, which sends a ping. Without activity during the next five
 * seconds it calls `onTimeout`. Activity only stores the time and starts no timer.
 */
export class Heartbeat {
  readonly #clock: ClockAndRandom;
  readonly #idleTimeoutMs: number;
  readonly #onIdle: () => void;
  readonly #onTimeout: () => void;
  #lastActivity: number;
  #cancelTimer: () => void;

  constructor(
    clock: ClockAndRandom,
    idleTimeoutMs: number,
    onIdle: () => void,
    onTimeout: () => void,
  ) {
    this.#clock = clock;
    this.#idleTimeoutMs = idleTimeoutMs;
    this.#onIdle = onIdle;
    this.#onTimeout = onTimeout;
    this.#lastActivity = clock.now();
    this.#cancelTimer = this.#checkAfter(idleTimeoutMs);
  }

  activity(): void {
    this.#lastActivity = this.#clock.now();
  }

  /** Expects activity within five seconds, because the connection has probably died. */
  checkNow(): void {
    this.stop();
    this.#probe();
  }

  stop(): void {
    this.#cancelTimer();
  }

  #checkAfter(ms: number): () => void {
    return this.#clock.setTimer(ms, () => this.#check());
  }

  #check(): void {
    const idleMs = this.#clock.now() - this.#lastActivity;
    if (idleMs < this.#idleTimeoutMs) this.#cancelTimer = this.#checkAfter(this.#idleTimeoutMs - idleMs);
    else this.#probe();
  }

  #probe(): void {
    const before = this.#lastActivity;
    this.#cancelTimer = this.#clock.setTimer(ANSWER_TIMEOUT_MS, () => {
      if (this.#lastActivity === before) this.#onTimeout();
      else this.#check();
    });
    this.#onIdle();
  }
}
