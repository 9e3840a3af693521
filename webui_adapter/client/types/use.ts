// Type tests: lines that must compile, and lines that must not. This file never runs.
import { type AnyEvent, type Bus, BusError, type BusEvent, connect, type Gap, type Position, type StatusChange } from "@eventbus/client";

interface Events {
  "document.indexed": { document: string };
  "chunk.embedded": { document: string; done: number; total: number };
  /** An event of the bus has the same name, so only a listener for `*` receives this one. */
  gap: { width: number };
}

const bus: Bus<Events> = connect<Events>({
  url: "/eventbus",
  token: async () => Promise.resolve("jwt"),
  cursor: "user:42=5f.17",
  topics: ["collection:7:*"],
  transport: "auto",
  backoff: { minMs: 100 },
  openTimeoutMs: 1_000,
  storageKey: "eventbus",
});
connect({ url: "/eventbus", token: () => "jwt", cursor: undefined });

// Events by type.
const stop: () => void = bus.on("document.indexed", (event) => {
  const document: string = event.data.document;
  const type: "document.indexed" = event.type;
  const topic: string = event.topic;
  const offset: number = event.offset;
  // @ts-expect-error: the data of this event has no such member
  event.data.done;
  // @ts-expect-error: a received event is read-only
  event.data = { document: "" };
  return [document, type, topic, offset];
});
stop();
// @ts-expect-error: no such event
bus.on("document.burnt", () => undefined);
// @ts-expect-error: a listener for another event
bus.on("document.indexed", (event: BusEvent<"chunk.embedded", Events["chunk.embedded"]>) => event);

// All events, discriminated by `type`.
bus.on("*", (event: AnyEvent<Events>) => {
  if (event.type === "chunk.embedded") return event.data.done / event.data.total;
  // @ts-expect-error: the event may have another type
  return event.data.done;
});

// Events of the bus.
bus.on("gap", (gap: Gap) => gap.reason);
// @ts-expect-error: `gap` is the event of the bus
bus.on("gap", (event) => event.data.width);
bus.on("status", (change: StatusChange) => change.retryInMs?.toFixed());
// @ts-expect-error: only `waiting` has it
bus.on("status", (change) => change.retryInMs.toFixed());
bus.on("error", (error) => (error instanceof BusError ? error.retryMs : error));
bus.on("position", (position: Position) => position.offset);

// By operation and by topic.
bus.op("9").on("document.indexed", (event) => event.data.document);
bus.op(9).on("*", (event) => event.type);
bus.topic("collection:7:*").on("chunk.embedded", (event) => event.data.total);
// @ts-expect-error: no such event
bus.op("9").on("document.burnt", () => undefined);
// @ts-expect-error: an operation has no status event
bus.op("9").on("status", () => undefined);

// Operations.
void bus.op(9).cancel().then(({ state, tasks }) => (state === "cancelled" ? 0 : tasks?.length));
void bus.op("9").info({ user: "43" });
void bus.operations({ state: "running", limit: 5 }).then(([newest]) => newest?.label);
void bus.operations({ state: ["queued", "running"], user: "43" });
// @ts-expect-error: no such state
void bus.operations({ state: "asleep" });
// @ts-expect-error: the owner is given by an object
void bus.op("9").cancel("43");
// @ts-expect-error: the list may be empty
void bus.operations().then(([newest]) => newest.label);
// @ts-expect-error: a topic has no `cancel`
bus.topic("user:42:*").cancel;

// Subscriptions.
const agreed: Promise<void> = bus.subscribe("collection:7:documents", { from: "5f.17" });
void agreed;
void bus.subscribe("collection:7:documents", { from: 0 });
void bus.unsubscribe("collection:7:documents");
// @ts-expect-error: an offset without an epoch is not a position
void bus.subscribe("collection:7:documents", { from: 17 });

// States.
const ended: boolean = bus.status === "closed";
// @ts-expect-error: no such status
const lost: boolean = bus.status === "lost";
// @ts-expect-error: the cursor is read-only
bus.cursor = "user:42=0";
void [ended, lost];
bus.close();

// Options.
// @ts-expect-error: `url` is required
connect({});
// @ts-expect-error: no such transport
connect({ url: "/eventbus", transport: "carrier pigeon" });
// @ts-expect-error: a token is a function, because tokens expire
connect({ url: "/eventbus", token: "jwt" });
// @ts-expect-error: no such option
connect({ url: "/eventbus", openTimeout: 5 });

// Without a type parameter, an event may have any name, and its data is `unknown`.
connect({ url: "/eventbus" }).on("whatever", (event) => {
  // @ts-expect-error: the shape of the data is unknown
  event.data.document;
});
