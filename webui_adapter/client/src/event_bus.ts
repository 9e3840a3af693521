// The bus that a page uses. It gives frames their meaning: which listeners receive them, where to
// resume, and which command they answer.
import type { ClockAndRandom } from "./clock_and_random.js";
import type { Operation, OperationQuery, Whose } from "./operations.js";
import { BusError } from "./protocol/errors.js";
import type { Command, CommandResult, ControlEvent } from "./protocol/messages.js";
import { channelOf, isPattern, matches, operationOf } from "./protocol/topics.js";
import { Acknowledgements } from "./state/acknowledgements.js";
import { type Cursor, parsePosition } from "./state/cursor.js";
import { type KeptBounds, KeptEvents } from "./state/kept_events.js";
import { Listeners, NOT_HANDLED, report } from "./state/listeners.js";
import { PendingCommands, type Reply, toBusError } from "./state/pending_commands.js";
import { Connection, type ConnectionListener, type ConnectionSettings } from "./transport/connection.js";
import type {
  Bus, BusEvent, Heard, Listenable, OperationScope, OwnEvents, Scope, Status, TransportName, Unsubscribe,
} from "./types.js";

const BUS_EVENTS = new Set<string>(["gap", "status", "error", "position"] satisfies (keyof OwnEvents)[]);

const END = / operation\.(?:succeeded|failed|cancelled) /;

export interface BusSettings extends ConnectionSettings {
  readonly topics: readonly string[];
  readonly lateListeners: KeptBounds;
  /** `stored` of an earlier page. */
  readonly stored: string;
}

export class EventBus<Events> implements Bus<Events> {
  // The tables are separate, because an application can have an event type called "gap".
  readonly #busListeners = new Listeners();
  readonly #eventListeners = new Listeners();
  readonly #pending = new PendingCommands();
  readonly #cursor: Cursor;
  readonly #onClose: () => void;
  readonly #patterns: Set<string>;
  // Default patterns that the page unsubscribed from. Each session starts with the default
  // patterns.
  readonly #declined = new Set<string>();
  readonly #connection: Connection;
  readonly #acknowledgements: Acknowledgements;
  readonly #clock: ClockAndRandom;
  readonly #storedBefore: string;
  readonly #kept: KeptEvents;
  /** Listeners of operations, for kept events. `#eventListeners` has them too. */
  readonly #lateListeners = new Listeners();
  /** The newest event that a listener of its operation has received. */
  #heard: BusEvent | undefined;

  constructor(
    settings: BusSettings,
    cursor: Cursor,
    clock: ClockAndRandom,
    onClose: () => void,
  ) {
    this.#cursor = cursor;
    this.#onClose = onClose;
    this.#patterns = new Set(settings.topics);
    this.#connection = new Connection(settings, this.#connectionListener(), clock);
    this.#acknowledgements = new Acknowledgements(clock, (ids) => this.#requestNow({ do: "ack", ids }));
    this.#clock = clock;
    this.#storedBefore = settings.stored;
    this.#kept = new KeptEvents(clock, settings.lateListeners, settings.stored);
  }

  get status(): Status {
    return this.#connection.status;
  }

  get cursor(): string {
    return this.#cursor.toString();
  }

  /** A line with the cursor, and lines with the events that no listener of their operation received. */
  get stored(): string {
    return [this.cursor, ...this.#kept.lines].join("\n");
  }

  /** Opens the connection. The caller has the bus by then, which callbacks may use. */
  open(): void {
    this.#connection.open();
  }

  /** Reconnects without a delay, or checks the connection: the page is shown or back online. */
  checkNow(): void {
    this.#connection.checkNow();
  }

  offline(): void {
    this.#connection.offline();
  }

  close(): void {
    this.#connection.close(1000, "closed by the page");
  }

  on<Name extends Listenable<Events>>(name: Name, listener: (event: Heard<Events, Name>) => unknown): Unsubscribe {
    return (BUS_EVENTS.has(name) ? this.#busListeners : this.#eventListeners).add(name, listener);
  }

  op(id: string | number): OperationScope<Events> {
    const operation = String(id);
    const request = async (what: "operation" | "cancel", whose?: Whose) => {
      const { data } = await this.#request({ ...whose, do: what, operation });
      return (data as Required<CommandResult>).operation;
    };
    return {
      on: (name, listener) => this.#onOperation(operation, name, listener as (event: BusEvent) => unknown),
      info: (whose) => request("operation", whose),
      cancel: (whose) => request("cancel", whose),
    };
  }

  async operations({ state, ...query }: OperationQuery = {}): Promise<readonly Operation[]> {
    const { data } = await this.#request({ ...query, do: "operations", ...(state && { state: [state].flat() }) });
    return (data as Required<CommandResult>).operations;
  }

  topic(pattern: string): Scope<Events> {
    return {
      on: (name, listener) =>
        this.#eventListeners.add(name, (event: BusEvent & Parameters<typeof listener>[0]) =>
          matches(pattern, event.topic) ? listener(event) : NOT_HANDLED,
        ),
    };
  }

  async subscribe(pattern: string, { from }: { readonly from?: string | 0 | undefined } = {}): Promise<void> {
    const position = from === undefined ? undefined : parsePosition(String(from));
    if (!isPattern(pattern)) {
      throw new BusError("bad_topic", `cannot subscribe: ${pattern} is not a pattern such as collection:7:*`, { field: "topic" });
    }
    if (from !== undefined && !position) {
      throw new BusError("bad_command", `cannot subscribe: ${from} is not a position such as 5f.17`, { field: "from" });
    }
    const channel = channelOf(pattern);
    this.#declined.delete(pattern);
    // If the connection is lost before the reply, the next one resumes from the cursor.
    if (position) this.#cursor.start(channel, position);
    try {
      await this.#request({ do: "subscribe", topic: pattern, ...(from === undefined ? {} : { from: String(from) }) });
      this.#patterns.add(pattern);
    } finally {
      this.#removeIfUnused(channel);
    }
  }

  async unsubscribe(pattern: string): Promise<void> {
    this.#pending.cancel("cancelled", pattern);
    this.#patterns.delete(pattern);
    if (isDefaultPattern(pattern)) this.#declined.add(pattern);
    // Without a connection no command is needed: the next one does not subscribe to the pattern.
    if (this.#connection.ready) await this.#request({ do: "unsubscribe", topic: pattern });
    this.#removeIfUnused(channelOf(pattern));
  }

  #onOperation(operation: string, name: string, listener: (event: BusEvent) => unknown): Unsubscribe {
    const entry = (event: BusEvent): unknown => {
      if (operationOf(event.topic) !== operation) return NOT_HANDLED;
      this.#heard = event;
      return listener(event);
    };
    const removeLive = this.#eventListeners.add(name, entry);
    const removeLate = this.#lateListeners.add(name, entry);
    const dropped = this.#kept.takeDropped(operation, name);
    // After the present code, so that all listeners that it adds receive the kept events in order.
    queueMicrotask(() => {
      if (dropped) this.#replaceDropped(operation, dropped);
      this.#deliverKept(operation);
    });
    return () => {
      removeLive();
      removeLate();
    };
  }

  #deliverKept(operation: string): void {
    const events = this.#kept.get(operation);
    for (const [id, event] of [...(events ?? [])]) {
      const deliver = () => this.#lateListeners.deliver(event);
      if (event.ack) this.#acknowledgements.handle(id, false, deliver, !event.offset);
      // Another listener may have handled an `ack` event already.
      if (this.#heard !== event) deliver();
      if (this.#heard === event) events?.delete(id);
    }
  }

  #replaceDropped(operation: string, dropped: string): void {
    const [topic = ""] = dropped.split(" ");
    this.#busListeners.call("gap", { ...this.#cursor.at(channelOf(topic)), reason: "operation", operation });
    // If the end was not dropped, it is kept or still to come.
    if (END.test(dropped)) this.#fetchEnd(operation, topic);
  }

  /** Replaces the dropped end of an operation by its present state. */
  #fetchEnd(operation: string, topic: string): void {
    this.op(operation).info().then(
      (info) => {
        const type = `operation.${info.state}`;
        // A task that started late can make an operation run again. Its end is still to come.
        if (!END.test(` ${type} `)) return;
        const event = { offset: 0, id: topic + type, type, topic, time: info.ended, data: { ...info, operation } };
        this.#lateListeners.deliver(event);
        if (this.#heard !== event) this.#kept.set(operation, event);
      },
      (error: unknown) => {
        const { retryMs } = error as BusError;
        if (retryMs) this.#clock.setTimer(retryMs, () => this.#fetchEnd(operation, topic));
      },
    );
  }

  #request(command: Command): Promise<Reply> {
    if (this.status === "closed") return Promise.reject(new BusError("closed", `${command.do} failed: closed`));
    const { numbered, reply } = this.#pending.add(command);
    if (this.#connection.ready) this.#connection.send(numbered);
    return reply;
  }

  /** Sends a command only if there is a connection. The next connection does not need it. */
  #requestNow(command: Command): Promise<Reply> {
    if (this.#connection.ready) return this.#request(command);
    return Promise.reject(new BusError("lost", `${command.do} failed: no connection`));
  }

  /**
   * Removes the position of a collection without subscriptions, so that nothing resumes from it.
   */
  #removeIfUnused(channel: string): void {
    const used = [...this.#patterns].some((pattern) => channelOf(pattern) === channel);
    if (channel.startsWith("collection:") && !used) this.#cursor.remove(channel);
  }

  #connectionListener(): ConnectionListener {
    return {
      beforeOpen: (transport) => this.#beforeOpen(transport),
      onEvent: (event) => this.#onEvent(event),
      onControlEvent: (event) => this.#onControlEvent(event),
      authenticate: async (token) => {
        const { time, data } = await this.#request({ do: "auth", token });
        return "expires" in data && data.expires ? data.expires - time : undefined;
      },
      onStatus: (change) => {
        if (change.status === "closed") {
          this.#pending.cancel("closed");
          this.#acknowledgements.close();
          this.#onClose();
        }
        this.#busListeners.call("status", change);
      },
      onLost: () => this.#pending.connectionLost(),
      onError: (error) => this.#reportError(error),
    };
  }

  #beforeOpen(transport: TransportName): { cursor: string; topics: readonly string[] } {
    for (const removed of this.#cursor.truncate()) this.#busListeners.call("gap", { ...removed, reason: "cursor" });
    // Over a WebSocket, pending subscriptions follow as commands, so that a refusal has a `ref`.
    const inQuery = transport === "sse" ? this.#pending.moveToQuery() : [];
    return { cursor: this.cursor, topics: [...new Set([...this.#patterns, ...inQuery])] };
  }

  #onEvent(event: BusEvent): void {
    const { id, topic } = event;
    const offset = event.offset as number | undefined;
    const fresh = this.#cursor.accept(event);
    if (event.ack) {
      // An earlier page received the event. If it had no listener, it did not handle the event.
      const handled = this.#cursor.startedAtOrAfter(topic, offset ?? Infinity) && !this.#storedBefore.includes(`\n${topic} `);
      this.#acknowledgements.handle(id, handled, () => this.#deliver(event), !offset);
    } else if (fresh) this.#deliver(event);
  }

  #deliver(event: BusEvent): unknown[] {
    const delivered = { ...event, offset: (event.offset as number | undefined) ?? 0 };
    const results = this.#eventListeners.deliver(delivered);
    const operation = operationOf(event.topic);
    if (operation !== undefined && this.#heard !== delivered) this.#kept.set(operation, delivered);
    return results;
  }

  #onControlEvent(event: ControlEvent): void {
    switch (event.type) {
      case "bus.hello":
        this.#onHello();
        break;
      case "bus.subscribed":
        this.#cursor.subscribed(event.data);
        this.#pending.settle(event);
        break;
      case "bus.position":
        this.#cursor.position(event.data);
        this.#busListeners.call("position", event.data);
        break;
      case "bus.gap":
        this.#busListeners.call("gap", event.data);
        break;
      case "bus.hold":
        this.#cursor.hold(event.data);
        break;
      case "bus.release":
        this.#cursor.release(event.data);
        break;
      case "bus.restored":
        this.#acknowledgements.resend();
        break;
      case "bus.ok":
        this.#pending.settle(event);
        break;
      case "bus.error":
        if (!this.#pending.settle(event)) this.#reportError(toBusError(event.data));
        break;
      default: // `Connection` handles the others. A later protocol version may have more.
    }
  }

  #onHello(): void {
    this.#cursor.reconnected();
    for (const command of this.#pending.toSend()) this.#connection.send(command);
    this.#acknowledgements.resend();
    for (const topic of this.#declined) this.#connection.send({ do: "unsubscribe", topic });
  }

  /** Reports an error that no promise carries: to the listeners, or as an uncaught error. */
  #reportError(error: BusError): void {
    if (!this.#busListeners.call("error", error)) report(error);
  }
}

/** Whether each session starts with the pattern: `user:{id}:*` and `system:*`. */
function isDefaultPattern(pattern: string): boolean {
  return pattern === `${channelOf(pattern)}:*` && !pattern.startsWith("collection:");
}
