// Commands that the page sent, or will send, and that have no reply yet.
import { BusError } from "../protocol/errors.js";
import type { Command, ControlEvent } from "../protocol/messages.js";

export type Reply = Extract<ControlEvent, { type: "bus.ok" | "bus.subscribed" }>;
type Refusal = Extract<ControlEvent, { type: "bus.error" }>;

interface PendingCommand {
  readonly command: Command;
  /** The connection's query carries the command. A query has no `ref`. */
  inQuery: boolean;
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: BusError) => void;
}

const LOST_WITH_CONNECTION = new Set(["auth", "ack"]);
// Codes of refusals that can refer to a pattern in the query.
const TOPIC_REFUSALS = new Set(["bad_topic", "forbidden", "too_many_topics"]);

export class PendingCommands {
  readonly #commands = new Map<number, PendingCommand>();
  #lastRef = 0;

  /** Adds a command. Returns it with its `ref`, and the promise of its reply. */
  add(command: Command): { readonly numbered: Command; readonly reply: Promise<Reply> } {
    const ref = ++this.#lastRef;
    const numbered = { ...command, ref };
    const reply = new Promise<Reply>((resolve, reject) => {
      this.#commands.set(ref, { command: numbered, inQuery: false, resolve, reject });
    });
    return { numbered, reply };
  }

  /**
   * Settles the commands that the reply belongs to.
   *
   * Returns whether the reply belongs to a command of this page. That includes commands that are
   * settled already: over SSE a refusal arrives twice.
   */
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

  /** Moves pending subscriptions to the connection's query. Returns their patterns. */
  moveToQuery(): string[] {
    const patterns: string[] = [];
    for (const pending of this.#commands.values()) {
      if (pending.command.do !== "subscribe") continue;
      pending.inQuery = true;
      patterns.push(pending.command.topic);
    }
    return patterns;
  }

  /** The commands to send over a connection that has just opened. */
  toSend(): Command[] {
    return Array.from(this.#commands.values()).filter(({ inQuery }) => !inQuery).map(({ command }) => command);
  }

  /**
   * Handles the loss of the connection.
   *
   * Commands that are safe to repeat stay pending, and the next connection sends them:
   * subscriptions and all commands about operations.
   */
  connectionLost(): void {
    for (const [ref, pending] of this.#commands) {
      pending.inQuery = false;
      const { do: name } = pending.command;
      // The next connection does not subscribe to the pattern, so the command is done.
      if (name === "unsubscribe") pending.resolve({ type: "bus.ok", time: 0, data: {} });
      else if (LOST_WITH_CONNECTION.has(name)) pending.reject(new BusError("lost", `${name} failed: connection lost`));
      else continue;
      this.#commands.delete(ref);
    }
  }

  /** Rejects the pending subscriptions to `pattern`. Without a pattern it rejects all commands. */
  cancel(code: string, pattern?: string): void {
    for (const [ref, pending] of this.#commands) {
      if (pattern !== undefined && !(pending.command.do === "subscribe" && pending.command.topic === pattern)) continue;
      this.#commands.delete(ref);
      pending.reject(new BusError(code, `${pending.command.do} failed: ${code}`));
    }
  }
}

function isReplyTo({ type, data }: Reply | Refusal, ref: number, { command, inQuery }: PendingCommand): boolean {
  if (data.ref === ref) return true;
  if (command.do !== "subscribe") return false;
  if (type === "bus.subscribed") return data.topics.includes(command.topic);
  if (type !== "bus.error" || !inQuery || data.ref != null) return false;
  return (data.topic ?? command.topic) === command.topic && TOPIC_REFUSALS.has(data.code);
}

export function toBusError({ code, message, field, limit, scope, retry_ms: retryMs }: Refusal["data"]): BusError {
  return new BusError(code, message, { field, limit, scope, retryMs });
}
