// Where each channel has been read up to, and which events have been seen already.
import { channelOf, isChannel } from "../protocol/topics.js";
import type { ChannelPosition, Subscribed } from "../protocol/messages.js";

/** Of one channel. The epoch is empty for "from the beginning", before the gateway has told it. */
export interface LogPosition {
  readonly epoch: string;
  readonly offset: number;
}

const MAX_LENGTH = 4096;
// No more than the gateway reads: it would refuse the connection, and the next one with the same cursor.
const POSITION = /^(?:0|([0-9a-f]{1,32})\.(0|[1-9][0-9]{0,15}))$/;

/** `5f.17`, or `0`; `undefined` if it is neither. */
export function parsePosition(text: string): LogPosition | undefined {
  const found = POSITION.exec(text);
  return found ? { epoch: found[1] ?? "", offset: Number(found[2] ?? 0) } : undefined;
}

export function parseCursor(text: string): Map<string, LogPosition> | undefined {
  const positions = new Map<string, LogPosition>();
  if (text.length > MAX_LENGTH) return undefined;
  for (const entry of text ? text.split(",") : []) {
    const [channel = "", position = "", ...more] = entry.split("=");
    const parsed = parsePosition(position);
    if (!parsed || more.length || !isChannel(channel)) return undefined;
    positions.set(channel, parsed);
  }
  return positions;
}

/** Without an epoch an offset means nothing, so then it is the beginning. */
function formatPosition({ epoch, offset }: LogPosition): string {
  return epoch ? `${epoch}.${offset}` : "0";
}

interface ChannelProgress {
  epoch: string;
  /** All up to here has been handed over: resume from here, drop what is not above. */
  offset: number;
  /** Events may overtake each other: then the offset stands still and `seen` says what to drop. */
  held: boolean;
  /** Offsets above `offset` that came while held. They outlive the connection, as the resume repeats them. */
  seen: Set<number>;
}

export class Cursor {
  readonly #channels = new Map<string, ChannelProgress>();
  /** Where the page began: what is below was handed over before it was loaded. */
  readonly #initial: ReadonlyMap<string, LogPosition>;

  constructor(positions: Iterable<readonly [string, LogPosition]> = []) {
    for (const [channel, position] of positions) this.start(channel, position);
    this.#initial = new Map(Array.from(this.#channels, ([channel, { epoch, offset }]) => [channel, { epoch, offset }]));
  }

  /** Whether this event is new. Says so once. */
  accept(topic: string, offset: number): boolean {
    const progress = this.#channels.get(channelOf(topic));
    // Of a channel that nothing was said about there is no epoch to remember an offset in.
    if (!progress) return true;
    if (offset <= progress.offset) return false;
    if (progress.held) return progress.seen.size !== progress.seen.add(offset).size;
    progress.offset = offset;
    return !progress.seen.delete(offset);
  }

  /** Whether the page began at or beyond this, in the same life of the channel. */
  startedAtOrAfter(topic: string, offset: number): boolean {
    const initial = this.#initial.get(channelOf(topic));
    return !!initial && offset <= initial.offset && initial.epoch === this.#channels.get(channelOf(topic))?.epoch;
  }

  /** Where to start a channel that has no place yet. */
  start(channel: string, { epoch, offset }: LogPosition): void {
    if (!this.#channels.has(channel)) this.#channels.set(channel, { epoch, offset, held: false, seen: new Set() });
  }

  /** Sets the place, also backwards. Only a resume in the same life of the channel continues what was seen. */
  subscribed({ channel, epoch, offset, how }: Omit<Subscribed, "topics">): void {
    const progress = this.#channels.get(channel);
    const continues = how === "resumed" && progress?.epoch === epoch;
    // A hold outlasts a further subscription to the same channel, until `bus.release` or a new connection:
    // to end it too early would lose events, to end it late only costs a larger set.
    const next = { epoch, offset, held: progress?.held ?? false, seen: continues ? progress.seen : new Set<number>() };
    setOffset(next, offset);
    this.#channels.set(channel, next);
  }

  /** Raises the place. In another epoch than ours the gateway's word counts. */
  position({ channel, epoch, offset }: ChannelPosition): void {
    const progress = this.#channels.get(channel);
    if (!progress) return;
    if (progress.epoch && progress.epoch !== epoch) {
      progress.offset = 0;
      progress.seen.clear();
    }
    progress.epoch = epoch;
    setOffset(progress, Math.max(progress.offset, offset));
  }

  hold(channel: string, offset: number): void {
    const progress = this.#channels.get(channel);
    if (!progress) return;
    progress.held = true;
    setOffset(progress, offset);
  }

  release(channel: string, offset: number): void {
    const progress = this.#channels.get(channel);
    if (!progress) return;
    progress.held = false;
    setOffset(progress, Math.max(progress.offset, offset));
  }

  /** A new connection starts in order; what was seen out of order is still seen. */
  reconnected(): void {
    for (const progress of this.#channels.values()) progress.held = false;
  }

  remove(channel: string): void {
    this.#channels.delete(channel);
  }

  /** Forgets the newest channels until the cursor fits into its length, and says which: they have a gap. */
  truncate(): ChannelPosition[] {
    const removed: ChannelPosition[] = [];
    const newestFirst = [...this.#channels].reverse();
    for (const [channel, { epoch, offset }] of newestFirst) {
      if (this.toString().length <= MAX_LENGTH) break;
      this.#channels.delete(channel);
      removed.push({ channel, epoch, offset });
    }
    return removed;
  }

  toString(): string {
    return Array.from(this.#channels, ([channel, progress]) => `${channel}=${formatPosition(progress)}`).join();
  }
}

function setOffset(progress: ChannelProgress, offset: number): void {
  progress.offset = offset;
  for (const seen of progress.seen) if (seen <= offset) progress.seen.delete(seen);
}
