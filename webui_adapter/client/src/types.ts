import type { BusError } from "./protocol/errors.js";

/** The application's events: event type -> shape of its `data`. Generated from the event classes. */
export type EventName<Events> = Extract<keyof Events, string>;

export interface BusEvent<Type extends string = string, Data = unknown> {
  /**
   * Place in its channel. Ascending for one channel, with holes. 0: news of the gateway's own process while its store is
   * away; the same event is not given again when it has got its place.
   */
  readonly offset: number;
  readonly id: string;
  readonly type: Type;
  readonly topic: string;
  /** Milliseconds since 1970, UTC, when it was emitted. */
  readonly time: number;
  /**
   * It must reach a person: it is acknowledged when its listeners have returned, and their promises resolved. If one
   * fails, or nobody listens, it comes again.
   */
  readonly ack?: boolean;
  readonly data: Data;
}

/** Any one of the application's events, told apart by `type`. */
export type AnyEvent<Events> = {
  [Type in EventName<Events>]: BusEvent<Type, Events[Type]>;
}[EventName<Events>];

/** Events were missed for good; what follows is the current state. Refetch what you keep. */
export interface Gap {
  readonly channel: string;
  /** `trimmed`, `epoch`, `ahead` or `hole` from the gateway; `cursor`: too many channels to resume them all. */
  readonly reason: string;
  readonly epoch: string;
  readonly offset: number;
}

/** Everything up to here has been delivered, in particular: the replay of this channel is over. */
export interface Position {
  readonly channel: string;
  readonly epoch: string;
  readonly offset: number;
}

/**
 * - `connecting`: an attempt is under way
 * - `open`: live
 * - `degraded`: connected, but the gateway has lost its store: no live events, no writing commands
 * - `waiting`: no connection; the next attempt comes in `retryInMs`
 * - `closed`: for good, by `close()` or because the gateway said so (`code`, `reason`)
 */
export type Status = "connecting" | "open" | "degraded" | "waiting" | "closed";

export type TransportName = "websocket" | "sse";

export interface StatusChange {
  readonly status: Status;
  readonly transport: TransportName;
  readonly retryInMs?: number;
  /** Close code of the WebSocket (also in SSE), or below 1000 the HTTP status of an SSE request. */
  readonly code?: number;
  readonly reason?: string;
}

/**
 * What the bus says about itself. These names and `*` are reserved: an event type of the application
 * that is called the same can be heard under `*` only.
 */
export interface OwnEvents {
  readonly gap: Gap;
  readonly status: StatusChange;
  readonly error: BusError;
  readonly position: Position;
}

export type Listenable<Events> = keyof OwnEvents | "*" | EventName<Events>;

/** What a listener of `Name` is given. */
export type Heard<Events, Name> = Name extends keyof OwnEvents
  ? OwnEvents[Name]
  : Name extends "*"
    ? AnyEvent<Events>
    : Name extends EventName<Events>
      ? BusEvent<Name, Events[Name]>
      : never;

export type Unsubscribe = () => void;

export interface Options {
  /** The gateway's prefix, such as `/eventbus`: relative to the page, or absolute `http(s):`. */
  readonly url: string;
  /** A fresh token, asked for before each connection and before the present one expires. Without it: cookies. */
  readonly token?: (() => string | Promise<string>) | undefined;
  /** Resume from here. Usually rendered into the page, so nothing between render and connection is missed. */
  readonly cursor?: string | undefined;
  /** Patterns from the start, beyond the user's own channel and `system`. */
  readonly topics?: readonly string[] | undefined;
  /** Default `auto`: WebSocket, and server-sent events where that never opens. */
  readonly transport?: "auto" | TransportName | undefined;
  /** Bounds of the wait between attempts: 500 to 20,000 by default. */
  readonly backoff?: { readonly minMs?: number; readonly maxMs?: number } | undefined;
  /** An attempt that has brought no `bus.hello` by then has failed. Default 10,000. */
  readonly openTimeoutMs?: number | undefined;
  /** Keep the cursor in `sessionStorage` under this key, over a reload of the page. `cursor` wins where both name a channel. */
  readonly storageKey?: string | undefined;
}

/** A part of the events, chosen by topic. */
export interface Scope<Events> {
  on<Name extends "*" | EventName<Events>>(
    name: Name,
    listener: (event: Name extends "*" ? AnyEvent<Events> : Heard<Events, Name>) => unknown,
  ): Unsubscribe;
}

/**
 * - `queued`: its tasks are on their way
 * - `running`: some task has begun
 * - `lost`: a worker that ran some of it is gone; it comes again, or fails in the end
 * - `cancelling`: somebody wants it stopped, some of it still runs
 * - `succeeded`, `failed`, `cancelled`: the end
 */
export type OperationState = "queued" | "running" | "lost" | "cancelling" | "succeeded" | "failed" | "cancelled";

export interface RunningTask {
  readonly task: string;
  readonly name: string;
  readonly retries: number;
  /** Its worker is gone. */
  readonly lost: boolean;
}

/** Where an operation stands. Times are milliseconds since 1970, 0 for never. */
export interface Operation {
  readonly user: string;
  readonly id: string;
  readonly label: string;
  readonly state: OperationState;
  readonly done: number;
  readonly failed: number;
  readonly total: number;
  readonly queued: number;
  readonly started: number;
  /** When it last changed. */
  readonly heard: number;
  readonly ended: number;
  /** When somebody wanted it stopped. */
  readonly cancelled: number;
  /** What runs of it now; not in lists. */
  readonly tasks?: readonly RunningTask[];
}

export interface Whose {
  /** For an admin who means another user's. */
  readonly user?: string;
}

export interface OperationQuery extends Whose {
  /** At most so many: 50 unless given, 200 at most. */
  readonly limit?: number;
  /** Only those in this state, or one of these. */
  readonly state?: OperationState | readonly OperationState[];
}

/**
 * Promises reject with a `BusError`: `unknown_operation`, `forbidden`, `read_only` or `unavailable` (both with `retryMs`), ...
 * Without a connection they wait for the next one, and what was on its way when it was lost is asked again.
 */
export interface OperationScope<Events> extends Scope<Events> {
  /** How it stands, with what runs of it. */
  info(whose?: Whose): Promise<Operation>;
  /** Stops it: what is queued will not run, what runs is told. Resolves with how it stands then; its events tell the end. */
  cancel(whose?: Whose): Promise<Operation>;
}

export interface Bus<Events> {
  readonly status: Status;
  /** Where a later `connect({cursor})` would resume. */
  readonly cursor: string;
  /** Listeners are called synchronously, in the order of arrival. */
  on<Name extends Listenable<Events>>(name: Name, listener: (event: Heard<Events, Name>) => unknown): Unsubscribe;
  /** One operation: its events, how it stands, and stopping it. */
  op(id: string | number): OperationScope<Events>;
  /** What there is, the newest first. */
  operations(query?: OperationQuery): Promise<readonly Operation[]>;
  /** Only events whose topic matches the pattern. Asks nothing of the gateway; see `subscribe`. */
  topic(pattern: string): Scope<Events>;
  /**
   * Asks the gateway for more events; kept over reconnects. Resolves when the gateway has agreed, rejects
   * with a `BusError` when it refuses. `from`: a position `epoch.offset`, or 0 for the beginning of the log.
   */
  subscribe(pattern: string, options?: { readonly from?: string | 0 | undefined }): Promise<void>;
  unsubscribe(pattern: string): Promise<void>;
  close(): void;
}
