// Where each channel has been read up to, and which events have been seen already.
import { channelOf, isChannel } from "../protocol/topics.js";
import type { ChannelPosition, Subscribed } from "../protocol/messages.js";

/** Of one channel. The epoch is empty for "from the beginning", before the gateway has told it. */
export interface Place {
  readonly epoch: string;
  readonly offset: number;
}

const LONGEST = 4096;
// No more than the gateway reads: it would refuse the connection, and the next one with the same cursor.
const PLACE = /^(?:0|([0-9a-f]{1,32})\.(0|[1-9][0-9]{0,15}))$/;

/** `5f.17`, or `0`; `undefined` if it is neither. */
export function parsePlace(text: string): Place | undefined {
  const found = PLACE.exec(text);
  return found ? { epoch: found[1] ?? "", offset: Number(found[2] ?? 0) } : undefined;
}

export function parseCursor(text: string): Map<string, Place> | undefined {
  const places = new Map<string, Place>();
  if (text.length > LONGEST) return undefined;
  for (const entry of text ? text.split(",") : []) {
    const [channel = "", position = "", ...more] = entry.split("=");
    const place = parsePlace(position);
    if (!place || more.length || !isChannel(channel)) return undefined;
    places.set(channel, place);
  }
  return places;
}

/** Without an epoch an offset means nothing, so then it is the beginning. */
function formatPlace({ epoch, offset }: Place): string {
  return epoch ? `${epoch}.${offset}` : "0";
}

interface Track {
  epoch: string;
  /** All up to here has been handed over: resume from here, drop what is not above. */
  offset: number;
  /** Events may overtake each other: then the offset stands still and `seen` says what to drop. */
  held: boolean;
  /** Offsets above `offset` that came while held. They outlive the connection, as the resume repeats them. */
  seen: Set<number>;
}

export class Cursor {
  readonly #tracks = new Map<string, Track>();
  /** Where the page began: what is below was handed over before it was loaded. */
  readonly #begun: ReadonlyMap<string, Place>;

  constructor(places: Iterable<readonly [string, Place]> = []) {
    for (const [channel, place] of places) this.begin(channel, place);
    this.#begun = new Map(Array.from(this.#tracks, ([channel, { epoch, offset }]) => [channel, { epoch, offset }]));
  }

  /** Whether this event is new. Says so once. */
  admit(topic: string, offset: number): boolean {
    const track = this.#tracks.get(channelOf(topic));
    // Of a channel that nothing was said about there is no epoch to remember an offset in.
    if (!track) return true;
    if (offset <= track.offset) return false;
    if (track.held) return track.seen.size !== track.seen.add(offset).size;
    track.offset = offset;
    return !track.seen.delete(offset);
  }

  /** Whether the page began at or beyond this, in the same life of the channel. */
  begunAbove(topic: string, offset: number): boolean {
    const begun = this.#begun.get(channelOf(topic));
    return !!begun && offset <= begun.offset && begun.epoch === this.#tracks.get(channelOf(topic))?.epoch;
  }

  /** Where to start a channel that has no place yet. */
  begin(channel: string, { epoch, offset }: Place): void {
    if (!this.#tracks.has(channel)) this.#tracks.set(channel, { epoch, offset, held: false, seen: new Set() });
  }

  /** Sets the place, also backwards. Only a resume in the same life of the channel continues what was seen. */
  subscribed({ channel, epoch, offset, how }: Omit<Subscribed, "topics">): void {
    const track = this.#tracks.get(channel);
    const continues = how === "resumed" && track?.epoch === epoch;
    // A hold outlasts a further subscription to the same channel, until `bus.release` or a new connection:
    // to end it too early would lose events, to end it late only costs a larger set.
    const next = { epoch, offset, held: track?.held ?? false, seen: continues ? track.seen : new Set<number>() };
    moveTo(next, offset);
    this.#tracks.set(channel, next);
  }

  /** Raises the place. In another epoch than ours the gateway's word counts. */
  position({ channel, epoch, offset }: ChannelPosition): void {
    const track = this.#tracks.get(channel);
    if (!track) return;
    if (track.epoch && track.epoch !== epoch) {
      track.offset = 0;
      track.seen.clear();
    }
    track.epoch = epoch;
    moveTo(track, Math.max(track.offset, offset));
  }

  hold(channel: string, offset: number): void {
    const track = this.#tracks.get(channel);
    if (!track) return;
    track.held = true;
    moveTo(track, offset);
  }

  release(channel: string, offset: number): void {
    const track = this.#tracks.get(channel);
    if (!track) return;
    track.held = false;
    moveTo(track, Math.max(track.offset, offset));
  }

  /** A new connection starts in order; what was seen out of order is still seen. */
  reconnected(): void {
    for (const track of this.#tracks.values()) track.held = false;
  }

  forget(channel: string): void {
    this.#tracks.delete(channel);
  }

  /** Forgets the newest channels until the cursor fits into its length, and says which: they have a gap. */
  shorten(): ChannelPosition[] {
    const forgotten: ChannelPosition[] = [];
    const newestFirst = [...this.#tracks].reverse();
    for (const [channel, { epoch, offset }] of newestFirst) {
      if (this.toString().length <= LONGEST) break;
      this.#tracks.delete(channel);
      forgotten.push({ channel, epoch, offset });
    }
    return forgotten;
  }

  toString(): string {
    return Array.from(this.#tracks, ([channel, track]) => `${channel}=${formatPlace(track)}`).join();
  }
}

function moveTo(track: Track, offset: number): void {
  track.offset = offset;
  for (const seen of track.seen) if (seen <= offset) track.seen.delete(seen);
}
