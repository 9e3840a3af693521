import type { ClockAndRandom } from "../clock_and_random.js";

// Refresh a token after this part of its lifetime.
const REFRESH_AT = 0.8;
// With less time left, a refresh would not finish before the token expires.
const MIN_LIFETIME_MS = 100;

/** Refreshes the token of a connection repeatedly, each time before it expires. */
export class TokenRefresh {
  readonly #clock: ClockAndRandom;
  readonly #sendToken: () => Promise<number | undefined>;
  readonly #onError: (error: unknown) => void;
  #stopped = false;
  #cancelTimer = (): void => undefined;

  /**
   * @param lifetimeMs - The remaining lifetime of the present token.
   * @param refresh - Returns the new token's lifetime, or `undefined` for the same as before.
   */
  constructor(
    clock: ClockAndRandom,
    lifetimeMs: number,
    refresh: () => Promise<number | undefined>,
    onError: (error: unknown) => void,
  ) {
    this.#clock = clock;
    this.#sendToken = refresh;
    this.#onError = onError;
    this.#schedule(lifetimeMs);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTimer();
  }

  #schedule(lifetimeMs: number): void {
    if (lifetimeMs < MIN_LIFETIME_MS) return;
    this.#cancelTimer = this.#clock.setTimer(lifetimeMs * REFRESH_AT, () => void this.#refresh(lifetimeMs));
  }

  async #refresh(lifetimeMs: number): Promise<void> {
    // After a failure the client tries again in the remaining time. When the token has expired,
    // the gateway closes the connection with code 4100.
    let nextLifetimeMs = lifetimeMs - lifetimeMs * REFRESH_AT;
    try {
      nextLifetimeMs = (await this.#sendToken()) ?? lifetimeMs;
    } catch (error) {
      if (!this.#stopped) this.#onError(error);
    }
    if (!this.#stopped) this.#schedule(nextLifetimeMs);
  }
}
