// Events that must reach a person: given to listeners once each, acknowledged when those are done.
import type { BusError } from "../protocol/errors.js";
import { FAILED, report, UNHEARD } from "./listeners.js";
import type { ClockAndRandom } from "../clock_and_random.js";

// As many ids as the protocol asks to remember.
const REMEMBERED = 1000;
const AT_ONCE = 100;
const GATHER_MS = 20;

/** The newest ids, and what is known of each. */
export class Remembered<Value> {
  readonly #ids = new Map<string, Value>();

  get(id: string): Value | undefined {
    return this.#ids.get(id);
  }

  set(id: string, value: Value): void {
    this.#ids.delete(id);
    this.#ids.set(id, value);
    trim(this.#ids);
  }

  delete(id: string): void {
    this.#ids.delete(id);
  }
}

export class Acks {
  readonly #handled = new Remembered<"busy" | "done">();
  /** Waiting to be sent, or for an answer. */
  readonly #unsaid = new Set<string>();
  #stop: (() => void) | undefined;
  /** One command at a time: on a slow line each would be sent again and again before its answer. */
  #asking = false;

  constructor(
    private readonly world: ClockAndRandom,
    /** Sends the command; settles with its answer. */
    private readonly ask: (ids: readonly string[]) => Promise<unknown>,
  ) {}

  /**
   * An event has come. `seen`: the page began beyond it, so it was handed over before. `give` calls the listeners and
   * says what they returned. What nobody hears, or a listener fails at, is not acknowledged: it comes again.
   */
  take(id: string, seen: boolean, give: () => readonly unknown[], local: boolean): void {
    const state = this.#handled.get(id);
    if (state === "busy") return;
    if (seen || state) {
      this.#say(id);
      return;
    }
    this.#handled.set(id, "busy");
    Promise.all(give()).then(
      (results) => {
        if (results.includes(FAILED) || results.every((result) => result === UNHEARD)) {
          this.#handled.delete(id);
          return;
        }
        this.#handled.set(id, "done");
        // A local one is not in any list yet; it will be acknowledged when it comes with its place.
        if (!local) this.#say(id);
      },
      (error: unknown) => {
        this.#handled.delete(id);
        report(error);
      },
    );
  }

  /** There is a connection, or it can write again: what has not been confirmed is said once more. */
  again(): void {
    this.#send(0);
  }

  close(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  #say(id: string): void {
    this.#unsaid.add(id);
    // What is let go here comes again, and is acknowledged then.
    trim(this.#unsaid);
    this.#send(GATHER_MS);
  }

  #send(ms: number): void {
    if (this.#asking || !this.#unsaid.size) return;
    this.#stop ??= this.world.setTimer(ms, () => {
      this.#stop = undefined;
      const ids = [...this.#unsaid].slice(0, AT_ONCE);
      this.#asking = true;
      this.ask(ids).then(
        () => {
          this.#asking = false;
          for (const id of ids) this.#unsaid.delete(id);
          this.#send(0);
        },
        (error: unknown) => {
          this.#asking = false;
          const { code, retryMs } = error as BusError;
          // Without a connection the next one says it.
          if (code === "lost" || code === "closed") return;
          // Refused without a word of when to try again: so it would be the next time.
          if (!retryMs) for (const id of ids) this.#unsaid.delete(id);
          this.#send(retryMs ?? 0);
        },
      );
    });
  }
}

/** Lets the oldest go. */
function trim(ids: { readonly size: number; keys(): Iterable<string>; delete(id: string): boolean }): void {
  if (ids.size <= REMEMBERED) return;
  for (const oldest of ids.keys()) {
    ids.delete(oldest);
    return;
  }
}
