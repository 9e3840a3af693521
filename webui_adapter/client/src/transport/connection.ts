// Keeps a connection to the gateway: which transport, when to try, with which token, until when.
// What the frames mean to the page is not its business.
import { type BackoffBounds, fullJitter } from "./backoff.js";
import { actionFor } from "../protocol/close_codes.js";
import { BusError } from "../protocol/errors.js";
import { Fallback } from "./fallback.js";
import { Heartbeat } from "./heartbeat.js";
import { TokenRefresh } from "./token_refresh.js";
import { type Transport, ABNORMAL_CLOSURE, type Transports } from "./transport.js";
import type { BusEvent, Status, StatusChange, TransportName } from "../types.js";
import { type Command, type Hello, isControlEvent, parseFrame, type ControlEvent } from "../protocol/messages.js";
import type { ClockAndRandom } from "../clock_and_random.js";

// A connection that held this long starts the back-off anew. A hello alone is not enough: a gateway
// that greets and breaks would be asked again and again without a pause.
const STABLE_AFTER_MS = 5_000;

type TokenFunction = () => string | Promise<string>;

export interface ConnectionSettings {
  readonly transport: "auto" | TransportName;
  readonly transports: Transports;
  readonly token: TokenFunction | undefined;
  readonly backoff: BackoffBounds;
  readonly openTimeoutMs: number;
}

/** Whom the line serves. */
export interface ConnectionListener {
  /** What to resume and to ask for, right before a connection opens. */
  beforeOpen(transport: TransportName): { cursor: string; topics: readonly string[] };
  onEvent(event: BusEvent): void;
  onControlEvent(event: ControlEvent): void;
  /** Gives the gateway a fresh token; how long it lives, if the gateway tells. */
  authenticate(token: string): Promise<number | undefined>;
  onStatus(change: StatusChange): void;
  /** The connection is gone, answers to commands with it. */
  onLost(): void;
  onError(error: BusError): void;
}

/** One attempt and what became of it. Its identity tells present from past. */
interface Attempt {
  readonly transportName: TransportName;
  transport?: Transport;
  heartbeat?: Heartbeat;
  tokenRefresh?: TokenRefresh;
  helloAt?: number;
  /** The transport was tried and has let nothing through so far. */
  unproven: boolean;
}

export class Connection {
  readonly #settings: ConnectionSettings;
  readonly #listener: ConnectionListener;
  readonly #clock: ClockAndRandom;
  #attempt: Attempt | undefined;
  #lastChange: StatusChange;
  #failures = 0;
  #tokenRefreshed = false;
  // The one thing that is waited for: hello, the next attempt, or the end of a drain.
  #cancelTimer = (): void => undefined;
  readonly #fallback: Fallback;

  constructor(
    settings: ConnectionSettings,
    listener: ConnectionListener,
    clock: ClockAndRandom,
  ) {
    this.#settings = settings;
    this.#listener = listener;
    this.#clock = clock;
    this.#fallback = new Fallback(settings.transport);
    this.#lastChange = { status: "connecting", transport: settings.transport === "sse" ? "sse" : "websocket" };
  }

  get status(): Status {
    return this.#lastChange.status;
  }

  /** Whether commands can be sent. */
  get ready(): boolean {
    return this.#attempt?.helloAt !== undefined;
  }

  send(command: Command): void {
    this.#attempt?.transport?.send(command);
  }

  /** Leaves the present connection, if any, for a new one. */
  open(): void {
    this.#discard();
    const attempt: Attempt = { transportName: this.#fallback.next(), unproven: false };
    this.#attempt = attempt;
    this.#setStatus("connecting");
    // A listener may just have closed the bus; the same goes for every check of this kind below.
    if (attempt === this.#attempt) void this.#connect(attempt);
  }

  /** Something has changed for the better: no need to wait any longer. */
  reconnectNow(): void {
    if (this.status === "waiting") this.open();
  }

  /** The browser says that there is no network. It errs at times, so there is a next attempt all the same. */
  offline(): void {
    if (this.status !== "closed") this.#waitAndReconnect(this.#settings.backoff.maxMs, { reason: "offline" });
  }

  close(code: number, reason: string): void {
    if (this.status === "closed") return;
    this.#discard();
    this.#setStatus("closed", { code, reason });
  }

  async #connect(attempt: Attempt): Promise<void> {
    const { token: getToken, transports } = this.#settings;
    this.#startOpenTimeout(attempt);
    let token: string | undefined;
    try {
      token = await getToken?.();
    } catch (cause) {
      if (attempt !== this.#attempt) return;
      this.#reportTokenError(cause);
      return this.#onClose(attempt, ABNORMAL_CLOSURE, "no token");
    }
    if (attempt !== this.#attempt) return;
    const { cursor, topics } = this.#listener.beforeOpen(attempt.transportName);
    if (attempt !== this.#attempt) return;
    // Anew, so that a slow token leaves the connection its time.
    this.#startOpenTimeout(attempt);
    attempt.unproven = true;
    try {
      attempt.transport = transports[attempt.transportName](
        { token, cursor, topics },
        {
          onActivity: () => attempt.heartbeat?.activity(),
          onFrame: (text) => this.#onFrame(attempt, text),
          onClose: (code, reason, retryAfterMs) => this.#onClose(attempt, code, reason, retryAfterMs),
        },
      );
    } catch (error) {
      // The browser forbids the address, as it does `ws:` from an `https:` page.
      this.#onClose(attempt, ABNORMAL_CLOSURE, String(error));
    }
  }

  #startOpenTimeout(attempt: Attempt): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.setTimer(this.#settings.openTimeoutMs, () => this.#onClose(attempt, ABNORMAL_CLOSURE, "timeout"));
  }

  #onFrame(attempt: Attempt, text: string): void {
    if (attempt !== this.#attempt) return;
    attempt.unproven = false;
    attempt.heartbeat?.activity();
    const frame = parseFrame(text);
    if (!frame) return;
    if (!isControlEvent(frame)) return this.#listener.onEvent(frame);
    if (frame.type === "bus.hello") this.#onHello(attempt, frame.time, frame.data);
    this.#listener.onControlEvent(frame);
    if (attempt !== this.#attempt) return;
    if (frame.type === "bus.hello" || frame.type === "bus.restored") this.#setStatus("open");
    else if (frame.type === "bus.degraded") this.#setStatus("degraded", { reason: frame.data.reason });
    else if (frame.type === "bus.drain") {
      this.#cancelTimer();
      this.#cancelTimer = this.#clock.setTimer(frame.data.after_ms, () => this.open());
    }
  }

  #onHello(attempt: Attempt, time: number, { ping_ms, expires }: Hello): void {
    this.#cancelTimer();
    this.#fallback.succeeded(attempt.transportName);
    attempt.helloAt = this.#clock.now();
    const onTimeout = () => this.#onClose(attempt, ABNORMAL_CLOSURE, "silence");
    // In SSE the gateway's comments are heard, so there silence needs no question.
    const onIdle = attempt.transportName === "sse" ? onTimeout : () => this.send({ do: "ping" });
    attempt.heartbeat = new Heartbeat(this.#clock, 2 * ping_ms, onIdle, onTimeout);
    // Both times are the gateway's, so the clock of this machine may be wrong.
    const { token } = this.#settings;
    if (expires && token) {
      attempt.tokenRefresh = new TokenRefresh(this.#clock, expires - time, () => this.#refreshToken(attempt, token), (error) => this.#reportTokenError(error));
    }
  }

  async #refreshToken(attempt: Attempt, getToken: TokenFunction): Promise<number | undefined> {
    // An SSE request carries its token in the head, so only a new one carries a new one.
    if (attempt.transportName === "sse") {
      this.open();
      return undefined;
    }
    const token = await getToken();
    return attempt === this.#attempt ? this.#listener.authenticate(token) : undefined;
  }

  #reportTokenError(cause: unknown): void {
    this.#listener.onError(cause instanceof BusError ? cause : new BusError("token", "the token function failed", { cause }));
  }

  #onClose(attempt: Attempt, code: number, reason: string, retryAfterMs = 0): void {
    if (attempt !== this.#attempt) return;
    // From 4000 on it is the gateway that spoke, so it has been reached.
    if (attempt.unproven && code < 4000) this.#fallback.failed();
    const action = actionFor(code);
    if (action === "stop") return this.close(code, reason);
    this.#discard();
    if (action === "refresh" && this.#settings.token && !this.#tokenRefreshed) {
      this.#tokenRefreshed = true;
      return this.open();
    }
    const delayMs = fullJitter(this.#failures++, this.#clock.random(), this.#settings.backoff);
    this.#waitAndReconnect(Math.max(delayMs, retryAfterMs), { code, reason });
  }

  #waitAndReconnect(retryInMs: number, detail: { code?: number; reason: string }): void {
    this.#discard();
    this.#cancelTimer = this.#clock.setTimer(retryInMs, () => this.open());
    this.#setStatus("waiting", { retryInMs, ...detail });
  }

  #discard(): void {
    this.#cancelTimer();
    const attempt = this.#attempt;
    if (!attempt) return;
    this.#attempt = undefined;
    attempt.heartbeat?.stop();
    attempt.tokenRefresh?.stop();
    attempt.transport?.close();
    if (attempt.helloAt !== undefined && this.#clock.now() - attempt.helloAt >= STABLE_AFTER_MS) {
      this.#failures = 0;
      this.#tokenRefreshed = false;
    }
    this.#listener.onLost();
  }

  #setStatus(status: Status, detail: Omit<StatusChange, "status" | "transport"> = {}): void {
    this.#lastChange = { status, transport: this.#attempt?.transportName ?? this.#lastChange.transport, ...detail };
    this.#listener.onStatus(this.#lastChange);
  }
}
