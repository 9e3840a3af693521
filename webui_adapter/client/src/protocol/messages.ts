// Frames and commands as docs/reference/protocol.md defines them. Members keep their wire names in
// snake_case.
import type { Operation, OperationState } from "../operations.js";
import type { BusEvent } from "../types.js";

export interface Hello {
  readonly session: string;
  readonly user: string;
  readonly ping_ms: number;
  readonly expires?: number | null;
}

export interface ChannelPosition {
  readonly channel: string;
  readonly epoch: string;
  readonly offset: number;
}

export interface Subscribed extends ChannelPosition {
  readonly topics: readonly string[];
  readonly how: "resumed" | "snapshot" | "gap";
  readonly ref?: number | string | null;
}

export interface CommandError {
  readonly code: string;
  readonly message: string;
  readonly ref?: number | string | null;
  readonly topic?: string;
  readonly field?: string;
  readonly limit?: number;
  readonly retry_ms?: number;
  readonly scope?: string;
}

export interface CommandResult {
  readonly ref?: number | string | null;
  readonly expires?: number | null;
  readonly operation?: Operation;
  readonly operations?: readonly Operation[];
}

interface Control<Type extends string, Data> {
  readonly type: Type;
  readonly time: number;
  readonly data: Data;
}

/** Events that the gateway sends about the connection and its channels. */
export type ControlEvent =
  | Control<"bus.hello", Hello>
  | Control<"bus.subscribed", Subscribed>
  | Control<"bus.position", ChannelPosition>
  | Control<"bus.gap", ChannelPosition & { readonly reason: string }>
  | Control<"bus.hold" | "bus.release", { readonly channel: string; readonly offset: number }>
  | Control<"bus.degraded", { readonly reason: string }>
  | Control<"bus.restored", unknown>
  | Control<"bus.drain", { readonly after_ms: number }>
  | Control<"bus.ok", CommandResult>
  | Control<"bus.error", CommandError>;

export type Frame = ControlEvent | BusEvent;

export function isControlEvent(frame: Frame): frame is ControlEvent {
  return frame.type.startsWith("bus.");
}

export type Command = { readonly ref?: number } & (
  | { readonly do: "auth"; readonly token: string; readonly cursor?: string; readonly topics?: readonly string[] }
  | { readonly do: "subscribe"; readonly topic: string; readonly from?: string }
  | { readonly do: "unsubscribe"; readonly topic: string }
  | { readonly do: "ack"; readonly ids: readonly string[] }
  | {
      readonly do: "operations";
      readonly limit?: number | undefined;
      readonly state?: readonly OperationState[] | undefined;
      readonly user?: string | undefined;
    }
  | { readonly do: "operation" | "cancel"; readonly operation: string; readonly user?: string | undefined }
  | { readonly do: "ping" }
);

/** Parses one frame. Returns `undefined` if the text is not a frame of this protocol. */
export function parseFrame(text: string): Frame | undefined {
  try {
    const frame = JSON.parse(text) as Frame;
    if (isControlEvent(frame) || typeof frame.topic === "string") return frame;
  } catch {
    // Text that is not JSON is not a frame.
  }
  return undefined;
}
