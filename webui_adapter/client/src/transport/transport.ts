import type { TransportName } from "../types.js";
import type { Command } from "../protocol/messages.js";

/** What a connection begins with. */
export interface Hail {
  readonly token: string | undefined;
  readonly cursor: string;
  readonly topics: readonly string[];
}

/** What a connection reports. Whoever listens ignores what comes after `closed` or after `Link.close()`. */
export interface Sink {
  /** One frame's text. */
  frame(text: string): void;
  /** A sign of life that is no frame. */
  alive(): void;
  closed(code: number, reason: string, retryAfterMs?: number): void;
}

export interface Link {
  send(command: Command): void;
  close(): void;
}

/** Opens a connection; never throws for the network's sake, but says `closed`. */
export type Open = (hail: Hail, sink: Sink) => Link;

export type Transports = Readonly<Record<TransportName, Open>>;

export const LOST = 1006;
