import type { Operation, OperationQuery, Whose } from "./operations.js";
import type { BusError } from "./protocol/errors.js";

/** The names of the application's event types. */
export type EventName<Events> = Extract<keyof Events, string>;

/** An event of the application. */
export interface BusEvent<Type extends string = string, Data = unknown> {
  /**
   * The position of the event in its channel's log. It increases within one channel, with holes.
   *
   * 0 means that the gateway delivered the event from its own process while Redis was unreachable.
   * The bus does not deliver that event again when it gets its offset.
   */
  readonly offset: number;
  /** The identity of the event: a UUIDv7, unless the application chose an id. */
  readonly id: string;
  /** The name of the event class. */
  readonly type: Type;
  /** The topic of the event, such as `user:42:operation:9`. */
  readonly topic: string;
  /** The time of the emit, in milliseconds since 1970 (UTC). */
  readonly time: number;
  /**
   * Whether the user must receive the event. The client acknowledges it after all listeners have
   * returned and their promises have resolved. If a listener fails or there is none, the gateway
   * delivers the event again.
   */
  readonly ack?: boolean;
  /** The payload, in the shape of the event class. */
  readonly data: Data;
}

/** Any event of the application. The member `type` discriminates the union. */
export type AnyEvent<Events> = {
  [Type in EventName<Events>]: BusEvent<Type, Events[Type]>;
}[EventName<Events>];

/**
 * Events of a channel are lost for this page. Fetch the current state of the data that you show.
 */
export interface Gap {
  readonly channel: string;
  /**
   * - `trimmed`: the log does not reach back to the cursor
   * - `epoch`: the channel has a new log, for example because Redis lost its data
   * - `ahead`: the cursor is after the end of the channel
   * - `hole`: the gateway missed live events and could not read them from the log
   * - `format`: a newer version of the workers wrote events that this gateway cannot read
   * - `cursor`: the page has too many channels to resume all of them
   * - `operation`: the client no longer has the events of an operation that arrived before its
   *   listener registered
   */
  readonly reason: string;
  /** The epoch of the channel's log. */
  readonly epoch: string;
  /** The offset after which delivery continues. */
  readonly offset: number;
  /** The operation whose events are lost. Only with the reason `operation`. */
  readonly operation?: string;
}

/** The page has received all events up to this position. It also marks the end of a replay. */
export interface Position {
  readonly channel: string;
  readonly epoch: string;
  readonly offset: number;
}

/**
 * - `connecting`: an attempt to connect is in progress
 * - `open`: the page receives live events
 * - `degraded`: the connection is open, but the gateway cannot use Redis; live events or commands
 *   that write do not work
 * - `waiting`: there is no connection; the next attempt starts in `retryInMs`
 * - `closed`: the page called `close()`, or the gateway closed with a final code; the bus does not
 *   reconnect
 */
export type Status = "connecting" | "open" | "degraded" | "waiting" | "closed";

/** `sse` is server-sent events. */
export type TransportName = "websocket" | "sse";

/** A change of the status, with its cause. */
export interface StatusChange {
  readonly status: Status;
  readonly transport: TransportName;
  /** Milliseconds until the next attempt. Only with `waiting`. */
  readonly retryInMs?: number;
  /** The close code of the connection. Below 1000 it is the HTTP status of an SSE request. */
  readonly code?: number;
  /** The cause in English, for a log or a developer. */
  readonly reason?: string;
}

/**
 * Events of the bus itself. Their names and `*` are reserved. A listener for `*` also receives
 * application events with a reserved name; a listener for that name does not.
 */
export interface OwnEvents {
  /** Events are lost. */
  readonly gap: Gap;
  /** The status has changed. */
  readonly status: StatusChange;
  /** An error that no promise carries. Without a listener the client reports it as uncaught. */
  readonly error: BusError;
  /** The page has received all events up to a position. */
  readonly position: Position;
}

/** The names that `on` accepts. */
export type Listenable<Events> = keyof OwnEvents | "*" | EventName<Events>;

/** The argument of a listener for `Name`. */
export type Heard<Events, Name> = Name extends keyof OwnEvents
  ? OwnEvents[Name]
  : Name extends "*"
    ? AnyEvent<Events>
    : Name extends EventName<Events>
      ? BusEvent<Name, Events[Name]>
      : never;

/** Removes the listener. Further calls have no effect. */
export type Unsubscribe = () => void;

/** Options of `connect`. */
export interface Options {
  /**
   * The gateway's prefix, such as `/eventbus`. Absolute (`http:`, `https:`) or relative to the
   * page.
   */
  readonly url: string;
  /**
   * Returns a fresh token. The client calls it before each connection and before the present token
   * expires. Default: no token; the browser sends its cookies.
   */
  readonly token?: (() => string | Promise<string>) | undefined;
  /**
   * The cursor to resume from. Render it into the page: the client then receives all events since
   * the rendering. Default: the stored cursor, or a snapshot.
   */
  readonly cursor?: string | undefined;
  /** Patterns to subscribe to, in addition to the user's channel and `system`. Default: none. */
  readonly topics?: readonly string[] | undefined;
  /** `auto` starts with WebSocket and changes to SSE if no WebSocket opens. Default: `auto`. */
  readonly transport?: "auto" | TransportName | undefined;
  /**
   * Bounds in milliseconds of the delay between two attempts. The delay is random; its bound
   * doubles from `minMs` to `maxMs`. Default: 500 and 20,000.
   */
  readonly backoff?: { readonly minMs?: number; readonly maxMs?: number } | undefined;
  /** Milliseconds until an attempt without a `bus.hello` fails. Default: 10,000. */
  readonly openTimeoutMs?: number | undefined;
  /**
   * Stores the cursor in `sessionStorage` under this key, so that a reloaded page resumes. If
   * `cursor` has the same channel, `cursor` counts. Default: the cursor is not stored.
   */
  readonly storageKey?: string | undefined;
  /**
   * Bounds of the events that the client keeps for listeners of `op(id)` that register later: the
   * number of operations, the number of events of each, and the milliseconds since the newest event
   * of an operation. Default: 200, 100 and 60,000.
   */
  readonly lateListeners?:
    | { readonly operations?: number; readonly events?: number; readonly ms?: number }
    | undefined;
}

/** The events of some topics. */
export interface Scope<Events> {
  /**
   * Adds a listener for the events of this scope.
   *
   * @param name - An event type of the application, or `*` for all of them.
   * @param listener - Called with each event. See `Bus.on`.
   * @returns A function that removes the listener.
   */
  on<Name extends "*" | EventName<Events>>(
    name: Name,
    listener: (event: Name extends "*" ? AnyEvent<Events> : Heard<Events, Name>) => unknown,
  ): Unsubscribe;
}

/**
 * One operation: its events, its state, and a way to stop it.
 *
 * The promises reject with a `BusError`, such as `unknown_operation` or `forbidden`. With
 * `read_only` and `unavailable` the error has `retryMs`. Without a connection the client sends the
 * command over the next one. If the connection ends before the reply, the client sends the command
 * again.
 */
export interface OperationScope<Events> extends Scope<Events> {
  /**
   * Adds a listener for the events of this operation.
   *
   * Events that arrived earlier, and that no listener of `op(id)` has received, follow first: in
   * order, right after the code that registers the listeners. See `Options.lateListeners`. If the
   * client no longer has them, the bus emits `gap` with the reason `operation`. If the end of the
   * operation is among them, the listener for the end receives it from the operation's state.
   *
   * @param name - An event type of the application, or `*` for all of them.
   * @param listener - Called with each event. See `Bus.on`.
   * @returns A function that removes the listener.
   */
  on<Name extends "*" | EventName<Events>>(
    name: Name,
    listener: (event: Name extends "*" ? AnyEvent<Events> : Heard<Events, Name>) => unknown,
  ): Unsubscribe;
  /**
   * Fetches the state of the operation and its running tasks.
   *
   * @param whose - The owner, for an admin. Default: the user of the connection.
   * @returns The operation.
   * @throws BusError if the gateway refuses the command or the bus is closed.
   */
  info(whose?: Whose): Promise<Operation>;
  /**
   * Requests a stop. Queued tasks do not run. Running tasks receive the request. The events of the
   * operation report its end.
   *
   * @param whose - The owner, for an admin. Default: the user of the connection.
   * @returns The operation after the request.
   * @throws BusError if the gateway refuses the command or the bus is closed.
   */
  cancel(whose?: Whose): Promise<Operation>;
}

/** A connection to the gateway that reconnects by itself. */
export interface Bus<Events> {
  /** The present status. */
  readonly status: Status;
  /** The present cursor. A later `connect({ cursor })` resumes from it. */
  readonly cursor: string;
  /**
   * Adds a listener for an event type of the application, for `*` (all of them), or for an event of
   * the bus: `gap`, `status`, `error`, `position`.
   *
   * The bus calls listeners synchronously, in the order of arrival. If a listener fails, the bus
   * reports the error as uncaught and calls the others.
   *
   * @param name - The event type.
   * @param listener - Called with each event. Its promise delays the acknowledgement.
   * @returns A function that removes the listener.
   */
  on<Name extends Listenable<Events>>(name: Name, listener: (event: Heard<Events, Name>) => unknown): Unsubscribe;
  /**
   * One operation.
   *
   * @param id - The id of the operation.
   */
  op(id: string | number): OperationScope<Events>;
  /**
   * Lists operations, the newest first.
   *
   * @param query - Selects operations. Default: the newest 50 of the user.
   * @returns The operations, without `tasks`.
   * @throws BusError if the gateway refuses the command or the bus is closed.
   */
  operations(query?: OperationQuery): Promise<readonly Operation[]>;
  /**
   * The events whose topic matches a pattern. This filters received events and subscribes to
   * nothing; see `subscribe`.
   *
   * @param pattern - A topic, or a topic whose last part is `*`.
   */
  topic(pattern: string): Scope<Events>;
  /**
   * Subscribes to more events. The subscription stays over reconnects.
   *
   * @param pattern - A topic, or a topic whose last part is `*`, such as `collection:7:*`.
   * @param options - `from` is a position `epoch.offset`, or 0 for the beginning of the log: the
   *   gateway first sends the later events of the log. Default: only new events.
   * @returns Resolves when the gateway has confirmed the subscription.
   * @throws BusError if the pattern or the position has the wrong form, if the gateway refuses it,
   *   or if the bus is closed.
   */
  subscribe(pattern: string, options?: { readonly from?: string | 0 | undefined }): Promise<void>;
  /**
   * Ends a subscription, or a pattern that every session starts with, such as `system:*`.
   *
   * @param pattern - The pattern as it was given to `subscribe`.
   * @returns Resolves when the gateway has confirmed it, or immediately without a connection.
   * @throws BusError if the gateway refuses the command.
   */
  unsubscribe(pattern: string): Promise<void>;
  /** Closes the connection. The bus does not reconnect, and open promises reject. */
  close(): void;
}
