import type { World } from "../clock_and_random.js";

// Renew when this share of a token's life is over.
const RENEW_AT = 0.8;
// With less than this left, asking for another token cannot help any more.
const SHORTEST_LIFE_MS = 100;

/** Renews the token of a connection, again and again, before it expires. */
export class Renewal {
  #stopped = false;
  #cancel = (): void => undefined;

  /** `renew` answers with the life of the new token; the same again, if that is not known. */
  constructor(
    private readonly world: World,
    lifeMs: number,
    private readonly renew: () => Promise<number | undefined>,
    private readonly failed: (error: unknown) => void,
  ) {
    this.#after(lifeMs);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  #after(lifeMs: number): void {
    if (lifeMs < SHORTEST_LIFE_MS) return;
    this.#cancel = this.world.after(lifeMs * RENEW_AT, () => void this.#renew(lifeMs));
  }

  async #renew(lifeMs: number): Promise<void> {
    // After a failure once more in what is left; in the end the gateway closes with a code that says so.
    let nextLifeMs = lifeMs * (1 - RENEW_AT);
    try {
      nextLifeMs = (await this.renew()) ?? lifeMs;
    } catch (error) {
      if (!this.#stopped) this.failed(error);
    }
    if (!this.#stopped) this.#after(nextLifeMs);
  }
}
