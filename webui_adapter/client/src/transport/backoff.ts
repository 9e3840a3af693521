// Full jitter: anywhere between now and an exponentially growing bound, so that a thousand pages that
// lost the same gateway do not come back in step.

export interface BackoffBounds {
  readonly minMs: number;
  readonly maxMs: number;
}

export const DEFAULT_BACKOFF: BackoffBounds = { minMs: 500, maxMs: 20_000 };

/** How long to wait before the attempt after `failures` earlier ones; `random` is in [0, 1). */
export function fullJitter(failures: number, random: number, { minMs, maxMs }: BackoffBounds): number {
  return random * Math.min(maxMs, minMs * 2 ** failures);
}
