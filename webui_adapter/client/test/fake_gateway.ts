import { type BusSettings, EventBus } from "../src/event_bus.js";
import { DEFAULT_KEPT_BOUNDS } from "../src/state/kept_events.js";
import { Cursor, parseCursor } from "../src/state/cursor.js";
import type { Handshake, OpenTransport, TransportListener } from "../src/transport/transport.js";
import type { BusEvent, StatusChange, TransportName } from "../src/types.js";
import type { Command } from "../src/protocol/messages.js";
import { FakeClock, flushPromises } from "./fake_clock.js";

/** The gateway's side of one connection. */
export class FakeConnection {
  readonly sent: Command[] = [];
  closedByClient = false;

  constructor(
    readonly transport: TransportName,
    readonly handshake: Handshake,
    private readonly listener: TransportListener,
  ) {}

  control(type: string, data: object = {}, time = 0): void {
    this.listener.onFrame(JSON.stringify({ type: `bus.${type}`, time, data }));
  }

  hello(data: object = {}): void {
    this.control("hello", { session: "s", user: "42", ping_ms: 25_000, expires: null, ...data });
  }

  subscribed(channel: string, offset: number, more: object = {}): void {
    this.control("subscribed", { channel, topics: [`${channel}:*`], epoch: "5f", offset, how: "resumed", ...more });
  }

  event(offset: number, event: Partial<BusEvent> = {}): void {
    const whole = { offset, id: `id-${offset}`, type: "a.b", topic: "user:42:operation:9", time: 0, data: {}, ...event };
    this.listener.onFrame(JSON.stringify(whole));
  }

  text(text: string): void {
    this.listener.onFrame(text);
  }

  activity(): void {
    this.listener.onActivity();
  }

  close(code: number, reason = "", retryAfterMs?: number): void {
    this.listener.onClose(code, reason, retryAfterMs);
  }
}

export interface Events {
  "a.b": object;
  "c.d": object;
  gap: object;
}

type Settings = Partial<BusSettings & { cursor: string }>;

/** A bus, and the gateway's side of its connections. */
export class FakeGateway {
  readonly clock = new FakeClock();
  readonly connections: FakeConnection[] = [];
  readonly changes: StatusChange[] = [];
  readonly bus: EventBus<Events>;
  closeCalls = 0;

  constructor({ cursor = "", ...settings }: Settings = {}) {
    this.bus = new EventBus<Events>(
      {
        topics: [],
        transport: "auto",
        transports: { websocket: this.#openTransport("websocket"), sse: this.#openTransport("sse") },
        token: undefined,
        backoff: { minMs: 500, maxMs: 20_000 },
        openTimeoutMs: 10_000,
        lateListeners: DEFAULT_KEPT_BOUNDS,
        stored: "",
        ...settings,
      },
      new Cursor(parseCursor(cursor)),
      this.clock,
      () => this.closeCalls++,
    );
    this.bus.on("status", (change) => this.changes.push(change));
  }

  #openTransport(transport: TransportName): OpenTransport {
    return (handshake, listener) => {
      const connection = new FakeConnection(transport, handshake, listener);
      this.connections.push(connection);
      return { send: (command) => connection.sent.push(command), close: () => (connection.closedByClient = true) };
    };
  }

  /** The newest connection. */
  get newest(): FakeConnection {
    const connection = this.connections.at(-1);
    if (!connection) throw new Error("cannot return the newest connection: the bus has opened none");
    return connection;
  }

  get status(): string {
    return this.bus.status;
  }

  get lastChange(): StatusChange | undefined {
    return this.changes.at(-1);
  }

  async open(): Promise<this> {
    this.bus.open();
    await flushPromises();
    return this;
  }

  /** Opens the bus and sends `bus.hello`. */
  async connected(hello: object = {}): Promise<this> {
    await this.open();
    this.newest.hello(hello);
    return this;
  }

  /** Waits for the back-off delay. Returns the next connection. */
  async reconnected(): Promise<FakeConnection> {
    const { retryInMs } = this.lastChange ?? {};
    if (retryInMs === undefined) throw new Error(`cannot wait for a reconnect: the status is ${this.status}`);
    await this.clock.advance(retryInMs);
    return this.newest;
  }
}
