/** Details of a `BusError` in addition to its code and message. */
export interface BusErrorDetails {
  /** The member of the command or the option that is wrong, such as `topic`. */
  readonly field?: string | undefined;
  /**
   * The limit that was exceeded: bytes, patterns, or requests per second, depending on the code.
   */
  readonly limit?: number | undefined;
  /** Milliseconds to wait before the next attempt. */
  readonly retryMs?: number | undefined;
  /** The owner of the exceeded rate limit: `session`, `user` or `instance`. */
  readonly scope?: string | undefined;
  /** The error that caused this one. */
  readonly cause?: unknown;
}

/**
 * The gateway refused a command, or the client could not complete it.
 *
 * `code` is the gateway's code (`forbidden`, `bad_topic`, `rate_limited`, `read_only`, …) or one of
 * the client's codes:
 *
 * - `token`: the `token` function failed; `cause` has its error
 * - `lost`: the connection ended before the reply
 * - `closed`: the bus is closed
 * - `cancelled`: the page unsubscribed before the reply
 */
export class BusError extends Error {
  override readonly name = "BusError";
  /** The machine-readable reason. */
  declare readonly code: string;
  /** The member of the command or the option that is wrong, such as `topic`. */
  declare readonly field: string | undefined;
  /**
   * The limit that was exceeded: bytes, patterns, or requests per second, depending on the code.
   */
  declare readonly limit: number | undefined;
  /** Milliseconds to wait before the next attempt. */
  declare readonly retryMs: number | undefined;
  /** The owner of the exceeded rate limit: `session`, `user` or `instance`. */
  declare readonly scope: string | undefined;

  /**
   * @param code - The machine-readable reason.
   * @param message - A sentence for a developer.
   * @param details - Facts about the refusal, as far as they are known.
   */
  constructor(code: string, message: string, details: BusErrorDetails = {}) {
    const { cause, ...more } = details;
    super(message, { cause });
    Object.assign(this, { code, ...more });
  }
}
