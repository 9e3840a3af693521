// The cursor: the position of each channel that a connection resumes from. It also deduplicates
// events: by their offset, and by their id where the epoch has changed.
import type { ChannelPosition, Subscribed } from "../protocol/messages.js";
import { channelOf, isChannel } from "../protocol/topics.js";
import { dropOldest } from "./recent_ids.js";

/** A position in a channel's log. An empty epoch means the beginning of the log. */
export interface LogPosition {
  readonly epoch: string;
  readonly offset: number;
}

/** The members of an event that deduplication needs. */
interface Received {
  readonly id: string;
  readonly topic: string;
  readonly offset?: number;
}

/** Everything up to the offset has arrived. */
type Reached = Omit<ChannelPosition, "epoch">;

const MAX_LENGTH = 4096;
const REMEMBERED_EVENTS = 10_000;
// The gateway accepts at most 32 and 16 digits. It would refuse every connection with a longer one.
const POSITION = /^(?:0|([0-9a-f]{1,32})\.(0|[1-9]\d{0,15}))$/;

/** Parses `epoch.offset`, such as `5f.17`, or `0`. Returns `undefined` for other text. */
export function parsePosition(text: string): LogPosition | undefined {
  const found = POSITION.exec(text);
  return found ? { epoch: found[1] ?? "", offset: Number(found[2] ?? 0) } : undefined;
}

/** Parses a cursor. Returns `undefined` if the text is not a cursor or is too long. */
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

/** An offset has no meaning without an epoch, so the result is then the beginning of the log. */
function formatPosition({ epoch, offset }: LogPosition): string {
  return epoch ? `${epoch}.${offset}` : "0";
}

interface ChannelProgress {
  epoch: string;
  /** The client resumes from here. It drops events whose offset is not above. */
  offset: number;
  /** Events may arrive out of order. `offset` then does not move, and `seen` finds duplicates. */
  held: boolean;
  /**
   * Offsets above `offset` received while held. A resumed connection repeats them, so they stay.
   */
  seen: Set<number>;
  /** Up to this offset, events of another epoch may be delivered again. */
  repeats: number;
}

export class Cursor {
  readonly #channels = new Map<string, ChannelProgress>();
  /** The positions that the page started with. An earlier page handled the events up to there. */
  readonly #initial: ReadonlyMap<string, LogPosition>;
  /** The epoch in which each of the newest events arrived. It is empty for local events. */
  readonly #epochs = new Map<string, string>();

  constructor(positions: Iterable<readonly [string, LogPosition]> = []) {
    for (const [channel, position] of positions) this.start(channel, position);
    this.#initial = new Map([...this.#channels.keys()].map((channel) => [channel, this.at(channel)]));
  }

  /**
   * Records an event. Returns false if the page has received it before.
   *
   * A local event has no offset: the gateway sends it again with one when Redis is reachable. After
   * a failover an event can come again in the next epoch.
   */
  accept({ id, topic, offset = 0 }: Received): boolean {
    // An offset has no meaning without an epoch, which the gateway has not sent for this channel.
    const progress = offset ? this.#channels.get(channelOf(topic)) : undefined;
    const known = this.#epochs.get(id);
    this.#epochs.set(id, progress?.epoch ?? "");
    dropOldest(this.#epochs, REMEMBERED_EVENTS);
    if (!progress) return known === undefined;
    const fresh = known === undefined || known === progress.epoch || (known !== "" && offset <= progress.repeats);
    if (offset <= progress.offset) return false;
    if (progress.held) return progress.seen.size !== progress.seen.add(offset).size && fresh;
    progress.offset = offset;
    return !progress.seen.delete(offset) && fresh;
  }

  /** Whether the page started at or after this offset, in the same epoch. */
  startedAtOrAfter(topic: string, offset: number): boolean {
    const initial = this.#initial.get(channelOf(topic));
    return !!initial && offset <= initial.offset && initial.epoch === this.#channels.get(channelOf(topic))?.epoch;
  }

  /** The position of a channel. The beginning of the log if it has none. */
  at(channel: string): ChannelPosition {
    const { epoch = "", offset = 0 } = this.#channels.get(channel) ?? {};
    return { channel, epoch, offset };
  }

  /** Sets the position of a channel that has none. */
  start(channel: string, { epoch, offset }: LogPosition): void {
    if (!this.#channels.has(channel)) this.#channels.set(channel, { epoch, offset, held: false, seen: new Set(), repeats: 0 });
  }

  /** Sets the position, which may be lower than before. A resume in the same epoch keeps `seen`. */
  subscribed({ channel, epoch, offset, how }: Omit<Subscribed, "topics">): void {
    const progress = this.#channels.get(channel);
    const continues = how === "resumed" && progress?.epoch === epoch;
    const next = {
      epoch,
      offset,
      // Another subscription to the channel does not end a hold. `bus.release` or a new connection
      // does. A hold that ends too early loses events; one that ends late only costs a larger set.
      held: progress?.held ?? false,
      seen: continues ? progress.seen : new Set<number>(),
      // The present state comes whole, and so does what the page asked for again.
      repeats: continues ? Math.max(progress.repeats, progress.offset) : how === "resumed" ? 0 : Infinity,
    };
    setOffset(next, offset);
    this.#channels.set(channel, next);
  }

  /** Raises the position. It belongs to the epoch of the last `subscribed`. */
  position({ channel, offset }: Reached): void {
    const progress = this.#channels.get(channel);
    if (!progress) return;
    setOffset(progress, Math.max(progress.offset, offset));
    if (progress.repeats === Infinity) progress.repeats = offset;
  }

  /** Starts a hold: events of the channel may arrive out of order. */
  hold({ channel, offset }: Reached): void {
    const progress = this.#channels.get(channel);
    if (!progress) return;
    progress.held = true;
    setOffset(progress, offset);
  }

  /** Ends a hold. */
  release({ channel, offset }: Reached): void {
    const progress = this.#channels.get(channel);
    if (!progress) return;
    progress.held = false;
    setOffset(progress, Math.max(progress.offset, offset));
  }

  /** Ends all holds: a new connection starts in order. The offsets in `seen` stay. */
  reconnected(): void {
    for (const progress of this.#channels.values()) progress.held = false;
  }

  remove(channel: string): void {
    this.#channels.delete(channel);
  }

  /**
   * Removes the newest channels until the cursor fits into a request. Returns them: they have a
   * gap.
   */
  truncate(): ChannelPosition[] {
    const removed: ChannelPosition[] = [];
    const newestFirst = [...this.#channels].reverse();
    for (const [channel] of newestFirst) {
      if (this.toString().length <= MAX_LENGTH) break;
      removed.push(this.at(channel));
      this.#channels.delete(channel);
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
