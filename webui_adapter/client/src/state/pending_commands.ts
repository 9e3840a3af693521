// Commands that have been asked and not yet answered.
import { BusError } from "../protocol/errors.js";
import type { Command, Word } from "../protocol/messages.js";

export type Answer = Extract<Word, { type: "bus.ok" | "bus.subscribed" }>;
type Refusal = Extract<Word, { type: "bus.error" }>;

interface Open {
  readonly command: Command;
  /** It travels in the query of the connection, where no `ref` can. */
  carried: boolean;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: BusError) => void;
}

const OF_ONE_CONNECTION = new Set(["auth", "ack"]);
// Refusals that may be meant for a pattern in the query.
const OF_TOPICS = new Set(["bad_topic", "forbidden", "too_many_topics"]);

export class Asked {
  readonly #open = new Map<number, Open>();
  #last = 0;

  ask(command: Command): { readonly numbered: Command; readonly answer: Promise<Answer> } {
    const ref = ++this.#last;
    const numbered = { ...command, ref };
    const answer = new Promise<Answer>((resolve, reject) => {
      this.#open.set(ref, { command: numbered, carried: false, resolve, reject });
    });
    return { numbered, answer };
  }

  /** Whether the answer was for something asked here, if only a moment ago: over SSE a refusal comes twice. */
  answered(word: Answer | Refusal): boolean {
    let found = typeof word.data.ref === "number";
    for (const [ref, open] of this.#open) {
      if (!answers(word, ref, open)) continue;
      found = true;
      this.#open.delete(ref);
      if (word.type === "bus.error") open.reject(refusal(word.data));
      else open.resolve(word);
    }
    return found;
  }

  /** The patterns that were asked for, which from now on travel in the query. */
  carry(): string[] {
    const patterns: string[] = [];
    for (const open of this.#open.values()) {
      if (open.command.do !== "subscribe") continue;
      open.carried = true;
      patterns.push(open.command.topic);
    }
    return patterns;
  }

  /** What has to be sent over a connection that has just opened. */
  unsent(): Command[] {
    return Array.from(this.#open.values()).filter(({ carried }) => !carried).map(({ command }) => command);
  }

  /**
   * The connection is gone. What means something on the next one, and as much if it is done twice, is asked again there:
   * subscriptions and all about operations.
   */
  lost(): void {
    for (const [ref, open] of this.#open) {
      open.carried = false;
      // The next connection does not ask for the pattern, which is what was wanted.
      if (open.command.do === "unsubscribe") open.resolve({ type: "bus.ok", time: 0, data: {} });
      else if (OF_ONE_CONNECTION.has(open.command.do)) open.reject(new BusError("lost", "the connection ended before the answer"));
      else continue;
      this.#open.delete(ref);
    }
  }

  /** Nobody will answer these any more; without a pattern: all. */
  cancel(code: string, pattern?: string): void {
    for (const [ref, open] of this.#open) {
      if (pattern !== undefined && !(open.command.do === "subscribe" && open.command.topic === pattern)) continue;
      this.#open.delete(ref);
      open.reject(new BusError(code, `${open.command.do}: ${code}`));
    }
  }
}

function answers({ type, data }: Answer | Refusal, ref: number, { command, carried }: Open): boolean {
  if (data.ref === ref) return true;
  if (command.do !== "subscribe") return false;
  if (type === "bus.subscribed") return data.topics.includes(command.topic);
  return type === "bus.error" && carried && data.ref == null && (data.topic ?? command.topic) === command.topic && OF_TOPICS.has(data.code);
}

export function refusal({ code, message, field, limit, scope, retry_ms: retryMs }: Refusal["data"]): BusError {
  return new BusError(code, message, { field, limit, scope, retryMs });
}
