import type { World } from "../clock_and_random.js";

const ANSWER_WITHIN_MS = 5_000;

/**
 * Finds a connection dead that nobody closed, as when the Wi-Fi is gone: a browser does not show the
 * server's pings to the page. After `quietMs` of nothing it asks `probe` to provoke an answer; if nothing
 * comes then either, the line is `dead`. A sign of life costs no timer, only a look at the clock.
 */
export class Liveness {
  #heardAt: number;
  #cancel: () => void;

  constructor(
    private readonly world: World,
    private readonly quietMs: number,
    private readonly probe: () => void,
    private readonly dead: () => void,
  ) {
    this.#heardAt = world.now();
    this.#cancel = this.#lookAfter(quietMs);
  }

  heard(): void {
    this.#heardAt = this.world.now();
  }

  stop(): void {
    this.#cancel();
  }

  #lookAfter(ms: number): () => void {
    return this.world.after(ms, () => this.#look());
  }

  #look(): void {
    const quietMs = this.world.now() - this.#heardAt;
    if (quietMs < this.quietMs) this.#cancel = this.#lookAfter(this.quietMs - quietMs);
    else this.#ask();
  }

  #ask(): void {
    const before = this.#heardAt;
    this.#cancel = this.world.after(ANSWER_WITHIN_MS, () => {
      if (this.#heardAt === before) this.dead();
      else this.#look();
    });
    this.probe();
  }
}
