/** The clock, timers and random numbers of the client. Tests replace them. */
export interface ClockAndRandom {
  /** The time in milliseconds. Only differences have a meaning. */
  now(): number;
  /** A number in [0, 1). */
  random(): number;
  /** Calls `callback` once, after `ms` milliseconds. Returns a function that cancels the timer. */
  setTimer(ms: number, callback: () => void): () => void;
}

// A browser runs a timer with a longer delay immediately.
const LONGEST_TIMEOUT = 2 ** 31 - 1;

// The calendar may be set back, and the steady clock may not count the time for which the machine sleeps.
let elapsed = 0;
let last: [number, number] = [0, 0];

export const systemClock: ClockAndRandom = {
  now() {
    const [steady, calendar] = last;
    last = [performance.now(), Date.now()];
    return (elapsed += Math.max(last[0] - steady, last[1] - calendar, 0));
  },
  random: () => Math.random(),
  setTimer(ms, callback) {
    const timer = setTimeout(callback, Math.min(ms, LONGEST_TIMEOUT));
    return () => clearTimeout(timer);
  },
};
