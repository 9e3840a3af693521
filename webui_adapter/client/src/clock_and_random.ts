/** Time and chance, so that tests can bring their own. */
export interface ClockAndRandom {
  /** Milliseconds, only for differences. */
  now(): number;
  /** In [0, 1). */
  random(): number;
  /** Calls once, later; the answer takes it back. */
  setTimer(ms: number, call: () => void): () => void;
}

// A browser takes a longer delay for none at all.
const LONGEST_TIMEOUT = 2 ** 31 - 1;

export const systemClock: ClockAndRandom = {
  now: () => Date.now(),
  random: () => Math.random(),
  setTimer(ms, call) {
    const timer = setTimeout(call, Math.min(ms, LONGEST_TIMEOUT));
    return () => clearTimeout(timer);
  },
};
