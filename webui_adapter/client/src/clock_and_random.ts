/** Time and chance, so that tests can bring their own. */
export interface World {
  /** Milliseconds, only for differences. */
  now(): number;
  /** In [0, 1). */
  random(): number;
  /** Calls once, later; the answer takes it back. */
  after(ms: number, call: () => void): () => void;
}

// A browser takes a longer delay for none at all.
const LONGEST_TIMEOUT = 2 ** 31 - 1;

export const realWorld: World = {
  now: () => Date.now(),
  random: () => Math.random(),
  after(ms, call) {
    const timer = setTimeout(call, Math.min(ms, LONGEST_TIMEOUT));
    return () => clearTimeout(timer);
  },
};
