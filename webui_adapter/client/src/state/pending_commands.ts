// Commands that have been asked and not yet answered.
import { BusError } from "../protocol/errors.js";
import type { Command, ControlEvent } from "../protocol/messages.js";

export type Reply = Extract<ControlEvent, { type: "bus.ok" | "bus.subscribed" }>;
type Refusal = Extract<ControlEvent, { type: "bus.error" }>;

interface PendingCommand {
  readonly command: Command;
  /** It travels in the query of the connection, where no `ref` can. */
  inQuery: boolean;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: BusError) => void;
}

const LOST_WITH_CONNECTION = new Set(["auth", "ack"]);
// Refusals that may be meant for a pattern in the query.
const TOPIC_REFUSALS = new Set(["bad_topic", "forbidden", "too_many_topics"]);

export class PendingCommands {
  readonly #commands = new Map<number, PendingCommand>();
  #lastRef = 0;

  add(command: Command): { readonly numbered: Command; readonly reply: Promise<Reply> } {
    const ref = ++this.#lastRef;
    const numbered = { ...command, ref };
    const reply = new Promise<Reply>((resolve, reject) => {
      this.#commands.set(ref, { command: numbered, inQuery: false, resolve, reject });
    });
    return { numbered, reply };
  }

  /** Whether the answer was for something asked here, if only a moment ago: over SSE a refusal comes twice. */
  settle(reply: Reply | Refusal): boolean {
    let found = typeof reply.data.ref === "number";
    for (const [ref, pending] of this.#commands) {
      if (!isReplyTo(reply, ref, pending)) continue;
      found = true;
      this.#commands.delete(ref);
      if (reply.type === "bus.error") pending.reject(toBusError(reply.data));
      else pending.resolve(reply);
    }
    return found;
  }

  /** The patterns that were asked for, which from now on travel in the query. */
  moveToQuery(): string[] {
    const patterns: string[] = [];
    for (const pending of this.#commands.values()) {
      if (pending.command.do !== "subscribe") continue;
      pending.inQuery = true;
      patterns.push(pending.command.topic);
    }
    return patterns;
  }

  /** What has to be sent over a connection that has just opened. */
  toSend(): Command[] {
    return Array.from(this.#commands.values()).filter(({ inQuery }) => !inQuery).map(({ command }) => command);
  }

  /**
   * The connection is gone. What means something on the next one, and as much if it is done twice, is asked again there:
   * subscriptions and all about operations.
   */
  connectionLost(): void {
    for (const [ref, pending] of this.#commands) {
      pending.inQuery = false;
      // The next connection does not ask for the pattern, which is what was wanted.
      if (pending.command.do === "unsubscribe") pending.resolve({ type: "bus.ok", time: 0, data: {} });
      else if (LOST_WITH_CONNECTION.has(pending.command.do)) pending.reject(new BusError("lost", "the connection ended before the answer"));
      else continue;
      this.#commands.delete(ref);
    }
  }

  /** Nobody will answer these any more; without a pattern: all. */
  cancel(code: string, pattern?: string): void {
    for (const [ref, pending] of this.#commands) {
      if (pattern !== undefined && !(pending.command.do === "subscribe" && pending.command.topic === pattern)) continue;
      this.#commands.delete(ref);
      pending.reject(new BusError(code, `${pending.command.do}: ${code}`));
    }
  }
}

function isReplyTo({ type, data }: Reply | Refusal, ref: number, { command, inQuery }: PendingCommand): boolean {
  if (data.ref === ref) return true;
  if (command.do !== "subscribe") return false;
  if (type === "bus.subscribed") return data.topics.includes(command.topic);
  return type === "bus.error" && inQuery && data.ref == null && (data.topic ?? command.topic) === command.topic && TOPIC_REFUSALS.has(data.code);
}

export function toBusError({ code, message, field, limit, scope, retry_ms: retryMs }: Refusal["data"]): BusError {
  return new BusError(code, message, { field, limit, scope, retryMs });
}
