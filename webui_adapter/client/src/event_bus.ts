// What the frames mean: whom they concern, where to resume, which command they answer.
import { Acks, Remembered } from "./state/acknowledgements.js";
import { type Answer, Asked, refusal } from "./state/pending_commands.js";
import { type Cursor, parsePlace } from "./state/cursor.js";
import { BusError } from "./protocol/errors.js";
import { Connection, type ConnectionSettings, type ConnectionListener } from "./transport/connection.js";
import { Listeners, report, UNHEARD } from "./state/listeners.js";
import { channelOf, isOfOperation, isPattern, matches } from "./protocol/topics.js";
import type {
  Bus, BusEvent, Heard, Listenable, Operation, OperationQuery, OperationScope, OwnEvents, Scope, Status, TransportName, Unsubscribe, Whose,
} from "./types.js";
import type { Command, Done, Word } from "./protocol/messages.js";
import type { ClockAndRandom } from "./clock_and_random.js";

const OWN = new Set<string>(["gap", "status", "error", "position"] satisfies (keyof OwnEvents)[]);

export class EventBus<Events> implements Bus<Events> {
  // Two tables, so that an event type called "gap" is not taken for the bus's own.
  readonly #own = new Listeners();
  readonly #events = new Listeners();
  readonly #asked = new Asked();
  readonly #patterns: Set<string>;
  // Patterns of the gateway's own choice that the page does not want; each session starts with them.
  readonly #unwanted = new Set<string>();
  readonly #connection: Connection;
  readonly #acks: Acks;
  readonly #local = new Remembered<true>();

  constructor(
    settings: ConnectionSettings & { readonly topics: readonly string[] },
    private readonly position: Cursor,
    clock: ClockAndRandom,
    private readonly onClose: () => void,
  ) {
    this.#patterns = new Set(settings.topics);
    this.#connection = new Connection(settings, this.#connectionListener(), clock);
    this.#acks = new Acks(clock, (ids) => this.#ready({ do: "ack", ids }));
  }

  get status(): Status {
    return this.#connection.status;
  }

  get cursor(): string {
    return this.position.toString();
  }

  /** Begins. Apart from the constructor, so that whoever builds the bus can hold it first. */
  open(): void {
    this.#connection.open();
  }

  /** There is reason to believe that the gateway can be reached again. */
  reconnectNow(): void {
    this.#connection.reconnectNow();
  }

  offline(): void {
    this.#connection.offline();
  }

  close(): void {
    this.#connection.close(1000, "closed by the page");
  }

  on<Name extends Listenable<Events>>(name: Name, listener: (event: Heard<Events, Name>) => unknown): Unsubscribe {
    return (OWN.has(name) ? this.#own : this.#events).add(name, listener);
  }

  op(id: string | number): OperationScope<Events> {
    const operation = String(id);
    const ask = async (what: "operation" | "cancel", whose?: Whose) => {
      const { data } = await this.#ask({ ...whose, do: what, operation });
      return (data as Required<Done>).operation;
    };
    return {
      ...this.#scope((topic) => isOfOperation(topic, operation)),
      info: (whose) => ask("operation", whose),
      cancel: (whose) => ask("cancel", whose),
    };
  }

  async operations({ state, ...query }: OperationQuery = {}): Promise<readonly Operation[]> {
    const { data } = await this.#ask({ ...query, do: "operations", ...(state && { state: [state].flat() }) });
    return (data as Required<Done>).operations;
  }

  topic(pattern: string): Scope<Events> {
    return this.#scope((topic) => matches(pattern, topic));
  }

  async subscribe(pattern: string, { from }: { readonly from?: string | 0 | undefined } = {}): Promise<void> {
    const place = from === undefined ? undefined : parsePlace(String(from));
    if (!isPattern(pattern)) throw new BusError("bad_topic", `not a pattern: ${pattern}`, { field: "topic" });
    if (from !== undefined && !place) throw new BusError("bad_command", `not a position: ${from}`, { field: "from" });
    const channel = channelOf(pattern);
    this.#unwanted.delete(pattern);
    // Into the cursor as well: should the connection be lost meanwhile, that is what resumes.
    if (place) this.position.begin(channel, place);
    try {
      await this.#ask({ do: "subscribe", topic: pattern, ...(from === undefined ? {} : { from: String(from) }) });
      this.#patterns.add(pattern);
    } finally {
      this.#forgetIfUnused(channel);
    }
  }

  async unsubscribe(pattern: string): Promise<void> {
    this.#asked.cancel("cancelled", pattern);
    this.#patterns.delete(pattern);
    if (isOfEachSession(pattern)) this.#unwanted.add(pattern);
    // Without a connection there is nothing to take back: the next one does not ask for it.
    if (this.#connection.ready) await this.#ask({ do: "unsubscribe", topic: pattern });
    this.#forgetIfUnused(channelOf(pattern));
  }

  #scope(covers: (topic: string) => boolean): Scope<Events> {
    return {
      on: (name, listener) =>
        this.#events.add(name, (event: BusEvent & Parameters<typeof listener>[0]) =>
          covers(event.topic) ? listener(event) : UNHEARD,
        ),
    };
  }

  #ask(command: Command): Promise<Answer> {
    if (this.status === "closed") return Promise.reject(new BusError("closed", "the bus is closed"));
    const { numbered, answer } = this.#asked.ask(command);
    if (this.#connection.ready) this.#connection.send(numbered);
    return answer;
  }

  /** Now or never: the next connection has other means to say it. */
  #ready(command: Command): Promise<Answer> {
    return this.#connection.ready ? this.#ask(command) : Promise.reject(new BusError("lost", "there is no connection"));
  }

  /** A channel that nothing subscribes to any more has no place to resume from. */
  #forgetIfUnused(channel: string): void {
    const used = [...this.#patterns].some((pattern) => channelOf(pattern) === channel);
    if (channel.startsWith("collection:") && !used) this.position.forget(channel);
  }

  #connectionListener(): ConnectionListener {
    return {
      beforeOpen: (transport) => this.#begin(transport),
      onEvent: (event) => this.#event(event),
      onControlEvent: (word) => this.#word(word),
      authenticate: async (token) => {
        const { time, data } = await this.#ask({ do: "auth", token });
        return "expires" in data && data.expires ? data.expires - time : undefined;
      },
      onStatus: (change) => {
        if (change.status === "closed") {
          this.#asked.cancel("closed");
          this.#acks.close();
          this.onClose();
        }
        this.#own.call("status", change);
      },
      onLost: () => this.#asked.lost(),
      onError: (error) => this.#trouble(error),
    };
  }

  #begin(transport: TransportName): { cursor: string; topics: readonly string[] } {
    for (const forgotten of this.position.shorten()) this.#own.call("gap", { ...forgotten, reason: "cursor" });
    // Over a WebSocket, patterns not yet agreed on follow as commands, so that a refusal has an address.
    const carried = transport === "sse" ? this.#asked.carry() : [];
    return { cursor: this.cursor, topics: [...new Set([...this.#patterns, ...carried])] };
  }

  #event(event: BusEvent): void {
    const { id, topic } = event;
    const offset = event.offset as number | undefined;
    // Without an offset: from the gateway's own process, and to come again with one.
    const local = offset === undefined;
    const seen = event.ack && this.position.begunAbove(topic, offset ?? Infinity);
    const fresh = local ? !this.#local.get(id) : this.position.admit(topic, offset) && !this.#local.get(id);
    if (local) this.#local.set(id, true);
    if (event.ack) this.#acks.take(id, Boolean(seen), () => this.#give(event), local);
    else if (fresh) this.#give(event);
  }

  #give(event: BusEvent): unknown[] {
    const given = { ...event, offset: (event.offset as number | undefined) ?? 0 };
    const results: unknown[] = [];
    this.#events.call(event.type, given, results);
    this.#events.call("*", given, results);
    return results;
  }

  #word(word: Word): void {
    switch (word.type) {
      case "bus.hello":
        this.position.reconnected();
        for (const command of this.#asked.unsent()) this.#connection.send(command);
        this.#acks.again();
        for (const topic of this.#unwanted) this.#connection.send({ do: "unsubscribe", topic });
        break;
      case "bus.subscribed":
        this.position.subscribed(word.data);
        this.#asked.answered(word);
        break;
      case "bus.position":
        this.position.position(word.data);
        this.#own.call("position", word.data);
        break;
      case "bus.gap":
        this.#own.call("gap", word.data);
        break;
      case "bus.hold":
        this.position.hold(word.data.channel, word.data.offset);
        break;
      case "bus.release":
        this.position.release(word.data.channel, word.data.offset);
        break;
      case "bus.restored":
        this.#acks.again();
        break;
      case "bus.ok":
        this.#asked.answered(word);
        break;
      case "bus.error":
        if (!this.#asked.answered(word)) this.#trouble(refusal(word.data));
        break;
      default: // The line's own, or of a later version of the protocol.
    }
  }

  /** An error that no promise carries must not go unseen. */
  #trouble(error: BusError): void {
    if (!this.#own.call("error", error)) report(error);
  }
}

/** `user:{id}:*` (of others it would be refused) and `system:*`. */
function isOfEachSession(pattern: string): boolean {
  return pattern === `${channelOf(pattern)}:*` && !pattern.startsWith("collection:");
}
