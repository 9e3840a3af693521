// Keeps a connection to the gateway: which transport, when to try, with which token, until when.
// What the frames mean to the page is not its business.
import { type Bounds, fullJitter } from "./backoff.js";
import { actionFor } from "../protocol/close_codes.js";
import { BusError } from "../protocol/errors.js";
import { Fallback } from "./fallback.js";
import { Liveness } from "./heartbeat.js";
import { Renewal } from "./token_refresh.js";
import { type Link, LOST, type Transports } from "./transport.js";
import type { BusEvent, Status, StatusChange, TransportName } from "../types.js";
import { type Command, type Hello, isWord, parseFrame, type Word } from "../protocol/messages.js";
import type { World } from "../clock_and_random.js";

// A connection that held this long starts the back-off anew. A hello alone is not enough: a gateway
// that greets and breaks would be asked again and again without a pause.
const GOOD_AFTER_MS = 5_000;

type Token = () => string | Promise<string>;

export interface LineSettings {
  readonly transport: "auto" | TransportName;
  readonly transports: Transports;
  readonly token: Token | undefined;
  readonly bounds: Bounds;
  readonly openTimeoutMs: number;
}

/** Whom the line serves. */
export interface LineUser {
  /** What to resume and to ask for, right before a connection opens. */
  begin(transport: TransportName): { cursor: string; topics: readonly string[] };
  event(event: BusEvent): void;
  word(word: Word): void;
  /** Gives the gateway a fresh token; how long it lives, if the gateway tells. */
  renew(token: string): Promise<number | undefined>;
  status(change: StatusChange): void;
  /** The connection is gone, answers to commands with it. */
  lost(): void;
  trouble(error: BusError): void;
}

/** One attempt and what became of it. Its identity tells present from past. */
interface Attempt {
  readonly transport: TransportName;
  link?: Link;
  liveness?: Liveness;
  renewal?: Renewal;
  greetedAt?: number;
  /** The transport was tried and has let nothing through so far. */
  unproven: boolean;
}

export class Line {
  #attempt: Attempt | undefined;
  #change: StatusChange;
  #failures = 0;
  #renewed = false;
  // The one thing that is waited for: hello, the next attempt, or the end of a drain.
  #cancelNext = (): void => undefined;
  readonly #fallback: Fallback;

  constructor(
    private readonly settings: LineSettings,
    private readonly user: LineUser,
    private readonly world: World,
  ) {
    this.#fallback = new Fallback(settings.transport);
    this.#change = { status: "connecting", transport: settings.transport === "sse" ? "sse" : "websocket" };
  }

  get status(): Status {
    return this.#change.status;
  }

  /** Whether commands can be sent. */
  get ready(): boolean {
    return this.#attempt?.greetedAt !== undefined;
  }

  send(command: Command): void {
    this.#attempt?.link?.send(command);
  }

  /** Leaves the present connection, if any, for a new one. */
  open(): void {
    this.#drop();
    const attempt: Attempt = { transport: this.#fallback.next(), unproven: false };
    this.#attempt = attempt;
    this.#say("connecting");
    // A listener may just have closed the bus; the same goes for every check of this kind below.
    if (attempt === this.#attempt) void this.#dial(attempt);
  }

  /** Something has changed for the better: no need to wait any longer. */
  wake(): void {
    if (this.status === "waiting") this.open();
  }

  /** The browser says that there is no network. It errs at times, so there is a next attempt all the same. */
  offline(): void {
    if (this.status !== "closed") this.#wait(this.settings.bounds.maxMs, { reason: "offline" });
  }

  close(code: number, reason: string): void {
    if (this.status === "closed") return;
    this.#drop();
    this.#say("closed", { code, reason });
  }

  async #dial(attempt: Attempt): Promise<void> {
    const { token: freshToken, transports } = this.settings;
    this.#limit(attempt);
    let token: string | undefined;
    try {
      token = await freshToken?.();
    } catch (cause) {
      if (attempt !== this.#attempt) return;
      this.#noToken(cause);
      return this.#ended(attempt, LOST, "no token");
    }
    if (attempt !== this.#attempt) return;
    const { cursor, topics } = this.user.begin(attempt.transport);
    if (attempt !== this.#attempt) return;
    // Anew, so that a slow token leaves the connection its time.
    this.#limit(attempt);
    attempt.unproven = true;
    try {
      attempt.link = transports[attempt.transport](
        { token, cursor, topics },
        {
          alive: () => attempt.liveness?.heard(),
          frame: (text) => this.#take(attempt, text),
          closed: (code, reason, retryAfterMs) => this.#ended(attempt, code, reason, retryAfterMs),
        },
      );
    } catch (error) {
      // The browser forbids the address, as it does `ws:` from an `https:` page.
      this.#ended(attempt, LOST, String(error));
    }
  }

  #limit(attempt: Attempt): void {
    this.#cancelNext();
    this.#cancelNext = this.world.after(this.settings.openTimeoutMs, () => this.#ended(attempt, LOST, "timeout"));
  }

  #take(attempt: Attempt, text: string): void {
    if (attempt !== this.#attempt) return;
    attempt.unproven = false;
    attempt.liveness?.heard();
    const frame = parseFrame(text);
    if (!frame) return;
    if (!isWord(frame)) return this.user.event(frame);
    if (frame.type === "bus.hello") this.#greeted(attempt, frame.time, frame.data);
    this.user.word(frame);
    if (attempt !== this.#attempt) return;
    if (frame.type === "bus.hello" || frame.type === "bus.restored") this.#say("open");
    else if (frame.type === "bus.degraded") this.#say("degraded", { reason: frame.data.reason });
    else if (frame.type === "bus.drain") {
      this.#cancelNext();
      this.#cancelNext = this.world.after(frame.data.after_ms, () => this.open());
    }
  }

  #greeted(attempt: Attempt, time: number, { ping_ms, expires }: Hello): void {
    this.#cancelNext();
    this.#fallback.worked(attempt.transport);
    attempt.greetedAt = this.world.now();
    const dead = () => this.#ended(attempt, LOST, "silence");
    // In SSE the gateway's comments are heard, so there silence needs no question.
    const probe = attempt.transport === "sse" ? dead : () => this.send({ do: "ping" });
    attempt.liveness = new Liveness(this.world, 2 * ping_ms, probe, dead);
    // Both times are the gateway's, so the clock of this machine may be wrong.
    const { token } = this.settings;
    if (expires && token) {
      attempt.renewal = new Renewal(this.world, expires - time, () => this.#renew(attempt, token), (error) => this.#noToken(error));
    }
  }

  async #renew(attempt: Attempt, freshToken: Token): Promise<number | undefined> {
    // An SSE request carries its token in the head, so only a new one carries a new one.
    if (attempt.transport === "sse") {
      this.open();
      return undefined;
    }
    const token = await freshToken();
    return attempt === this.#attempt ? this.user.renew(token) : undefined;
  }

  #noToken(cause: unknown): void {
    this.user.trouble(cause instanceof BusError ? cause : new BusError("token", "the token function failed", { cause }));
  }

  #ended(attempt: Attempt, code: number, reason: string, retryAfterMs = 0): void {
    if (attempt !== this.#attempt) return;
    // From 4000 on it is the gateway that spoke, so it has been reached.
    if (attempt.unproven && code < 4000) this.#fallback.failed();
    const action = actionFor(code);
    if (action === "stay") return this.close(code, reason);
    this.#drop();
    if (action === "renew" && this.settings.token && !this.#renewed) {
      this.#renewed = true;
      return this.open();
    }
    const wait = fullJitter(this.#failures++, this.world.random(), this.settings.bounds);
    this.#wait(Math.max(wait, retryAfterMs), { code, reason });
  }

  #wait(retryInMs: number, why: { code?: number; reason: string }): void {
    this.#drop();
    this.#cancelNext = this.world.after(retryInMs, () => this.open());
    this.#say("waiting", { retryInMs, ...why });
  }

  #drop(): void {
    this.#cancelNext();
    const attempt = this.#attempt;
    if (!attempt) return;
    this.#attempt = undefined;
    attempt.liveness?.stop();
    attempt.renewal?.stop();
    attempt.link?.close();
    if (attempt.greetedAt !== undefined && this.world.now() - attempt.greetedAt >= GOOD_AFTER_MS) {
      this.#failures = 0;
      this.#renewed = false;
    }
    this.user.lost();
  }

  #say(status: Status, detail: Omit<StatusChange, "status" | "transport"> = {}): void {
    this.#change = { status, transport: this.#attempt?.transport ?? this.#change.transport, ...detail };
    this.user.status(this.#change);
  }
}
