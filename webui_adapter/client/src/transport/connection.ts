// Keeps one connection to the gateway open: transport, back-off, token and heartbeat. `EventBus`
// interprets the frames.
import type { ClockAndRandom } from "../clock_and_random.js";
import { actionFor, REVOKED } from "../protocol/close_codes.js";
import { BusError } from "../protocol/errors.js";
import { type Command, type ControlEvent, type Hello, isControlEvent, parseFrame } from "../protocol/messages.js";
import type { BusEvent, Status, StatusChange, TransportName } from "../types.js";
import { type BackoffBounds, fullJitter } from "./backoff.js";
import { Fallback } from "./fallback.js";
import { Heartbeat } from "./heartbeat.js";
import { TokenRefresh } from "./token_refresh.js";
import { ABNORMAL_CLOSURE, type Transport, type Transports } from "./transport.js";

// A connection that was open this long resets the back-off. A hello does not: the client would
// reconnect without a pause to a gateway that fails right after its hello.
const STABLE_AFTER_MS = 5_000;

// After a revocation the site needs time to issue a token that counts as later.
const REVOKED_PAUSE_MS = 1_000;

type TokenFunction = () => string | Promise<string>;

export interface ConnectionSettings {
  readonly transport: "auto" | TransportName;
  readonly transports: Transports;
  readonly token: TokenFunction | undefined;
  readonly backoff: BackoffBounds;
  readonly openTimeoutMs: number;
}

/** Receives the events of a connection. */
export interface ConnectionListener {
  /** Returns the cursor and the topics of the handshake. Called right before a connection opens. */
  beforeOpen(transport: TransportName): { cursor: string; topics: readonly string[] };
  onEvent(event: BusEvent): void;
  onControlEvent(event: ControlEvent): void;
  /** Sends a fresh token. Resolves with its lifetime in ms, or `undefined` if it is not known. */
  authenticate(token: string): Promise<number | undefined>;
  onStatus(change: StatusChange): void;
  /** The connection has ended. Replies to its commands will not arrive. */
  onLost(): void;
  onError(error: BusError): void;
}

/** One attempt to connect, and its connection. Callbacks of earlier attempts are ignored. */
interface Attempt {
  readonly transportName: TransportName;
  transport?: Transport;
  heartbeat?: Heartbeat;
  tokenRefresh?: TokenRefresh;
  helloAt?: number;
  token?: string | undefined;
  /** The transport was opened, and no frame has arrived over it. */
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
  /** The token of the last connection, if it was revoked; without a token function it has none. */
  #revoked: { readonly token: string | undefined } | undefined;
  // There is one timer: for the hello, the next attempt, or the end of a drain.
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

  /** Whether the connection can send commands. */
  get ready(): boolean {
    return this.#attempt?.helloAt !== undefined;
  }

  send(command: Command): void {
    this.#attempt?.transport?.send(command);
  }

  /** Closes the present connection, if there is one, and opens another. */
  open(): void {
    this.#discard();
    const attempt: Attempt = { transportName: this.#fallback.next(), unproven: false };
    this.#attempt = attempt;
    this.#setStatus("connecting");
    // A listener may have closed the bus. All comparisons with `#attempt` have this reason.
    if (attempt === this.#attempt) void this.#connect(attempt);
  }

  /**
   * The page is shown or the network has changed. Ends the back-off delay, or checks that the
   * connection is alive.
   */
  checkNow(): void {
    if (this.status === "waiting") this.open();
    else this.#attempt?.heartbeat?.checkNow();
  }

  /**
   * The browser reports that there is no network. That may be wrong, so the client still retries.
   */
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
    if (token !== undefined && token === this.#revoked?.token) return this.close(REVOKED, "the token is revoked");
    attempt.token = token;
    const { cursor, topics } = this.#listener.beforeOpen(attempt.transportName);
    if (attempt !== this.#attempt) return;
    // The timeout restarts, so that a slow token function does not shorten it.
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
      // The browser refuses the URL, such as `ws:` on an `https:` page.
      this.#onClose(attempt, ABNORMAL_CLOSURE, String(error));
    }
  }

  #startOpenTimeout(attempt: Attempt): void {
    this.#cancelTimer();
    const onTimeout = () => this.#onClose(attempt, ABNORMAL_CLOSURE, "timeout");
    this.#cancelTimer = this.#clock.setTimer(this.#settings.openTimeoutMs, onTimeout);
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
    attempt.heartbeat = new Heartbeat(this.#clock, 2 * ping_ms, () => this.send({ do: "ping" }), onTimeout);
    // Both times come from the gateway's clock, so the clock of this machine does not matter.
    const { token } = this.#settings;
    if (expires && token) {
      const refresh = () => this.#refreshToken(attempt, token);
      const onError = (error: unknown) => this.#reportTokenError(error);
      attempt.tokenRefresh = new TokenRefresh(this.#clock, expires - time, refresh, onError);
    }
  }

  async #refreshToken(attempt: Attempt, getToken: TokenFunction): Promise<number | undefined> {
    // An SSE request has its token in a header, so a fresh token needs a new request.
    if (attempt.transportName === "sse") {
      this.open();
      return undefined;
    }
    const token = await getToken();
    if (attempt !== this.#attempt) return undefined;
    const lifetimeMs = await this.#listener.authenticate(token);
    attempt.token = token;
    return lifetimeMs;
  }

  #reportTokenError(cause: unknown): void {
    const error = new BusError("token", "the token function failed", { cause });
    this.#listener.onError(cause instanceof BusError ? cause : error);
  }

  #onClose(attempt: Attempt, code: number, reason: string, retryAfterMs = 0): void {
    if (attempt !== this.#attempt) return;
    // The gateway sends the codes from 4000, so the transport works.
    if (attempt.unproven && code < 4000) this.#fallback.failed();
    const action = actionFor(code);
    if (action === "stop") return this.close(code, reason);
    this.#discard();
    if (code === REVOKED) {
      // Without a token function the same cookie would come again.
      if (this.#revoked && !this.#settings.token) return this.close(code, reason);
      this.#revoked = { token: attempt.token };
      retryAfterMs = Math.max(retryAfterMs, REVOKED_PAUSE_MS);
    } else if (action === "refresh" && this.#settings.token && !this.#tokenRefreshed) {
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
      this.#revoked = undefined;
    }
    this.#listener.onLost();
  }

  #setStatus(status: Status, detail: Omit<StatusChange, "status" | "transport"> = {}): void {
    this.#lastChange = { status, transport: this.#attempt?.transportName ?? this.#lastChange.transport, ...detail };
    this.#listener.onStatus(this.#lastChange);
  }
}
