/** What the gateway says in `bus.error`, beside the code. */
export interface BusErrorDetails {
  readonly field?: string | undefined;
  readonly limit?: number | undefined;
  readonly retryMs?: number | undefined;
  /** Whose rate it was: `session`, `user` or `instance`. */
  readonly scope?: string | undefined;
  readonly cause?: unknown;
}

/**
 * Something was refused or could not be done. `code` is the gateway's (`forbidden`, `bad_topic`,
 * `rate_limited`, ...) or the client's own: `token` (the token function failed), `lost` (the connection
 * ended before the answer), `closed` (the bus is closed), `cancelled` (unsubscribed before the answer).
 */
export class BusError extends Error {
  override readonly name = "BusError";
  readonly code: string;
  readonly field: string | undefined;
  readonly limit: number | undefined;
  readonly retryMs: number | undefined;
  readonly scope: string | undefined;

  constructor(code: string, message: string, refusal: BusErrorDetails = {}) {
    super(message, { cause: refusal.cause });
    this.code = code;
    this.field = refusal.field;
    this.limit = refusal.limit;
    this.retryMs = refusal.retryMs;
    this.scope = refusal.scope;
  }
}
