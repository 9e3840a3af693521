// Exponential back-off with full jitter: a random delay below a bound that doubles. When a gateway
// stops, its clients therefore do not all reconnect at the same time.

export interface BackoffBounds {
  readonly minMs: number;
  readonly maxMs: number;
}

export const DEFAULT_BACKOFF: BackoffBounds = { minMs: 500, maxMs: 20_000 };

/**
 * The delay in milliseconds before the next attempt, after `failures` failed ones. `random` is in
 * [0, 1).
 */
export function fullJitter(failures: number, random: number, { minMs, maxMs }: BackoffBounds): number {
  return random * Math.min(maxMs, minMs * 2 ** failures);
}
