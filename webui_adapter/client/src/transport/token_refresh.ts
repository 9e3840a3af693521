import type { ClockAndRandom } from "../clock_and_random.js";

// Renew when this share of a token's life is over.
const REFRESH_AT = 0.8;
// With less than this left, asking for another token cannot help any more.
const MIN_LIFETIME_MS = 100;

/** Renews the token of a connection, again and again, before it expires. */
export class TokenRefresh {
  #stopped = false;
  #cancelTimer = (): void => undefined;

  /** `renew` answers with the life of the new token; the same again, if that is not known. */
  constructor(
    private readonly clock: ClockAndRandom,
    lifetimeMs: number,
    private readonly refresh: () => Promise<number | undefined>,
    private readonly onError: (error: unknown) => void,
  ) {
    this.#schedule(lifetimeMs);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancelTimer();
  }

  #schedule(lifetimeMs: number): void {
    if (lifetimeMs < MIN_LIFETIME_MS) return;
    this.#cancelTimer = this.clock.setTimer(lifetimeMs * REFRESH_AT, () => void this.#refresh(lifetimeMs));
  }

  async #refresh(lifetimeMs: number): Promise<void> {
    // After a failure once more in what is left; in the end the gateway closes with a code that says so.
    let nextLifetimeMs = lifetimeMs * (1 - REFRESH_AT);
    try {
      nextLifetimeMs = (await this.refresh()) ?? lifetimeMs;
    } catch (error) {
      if (!this.#stopped) this.onError(error);
    }
    if (!this.#stopped) this.#schedule(nextLifetimeMs);
  }
}
