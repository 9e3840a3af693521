// What must compile, and what must not. Never run.
import { type AnyEvent, type Bus, BusError, type BusEvent, connect, type Gap, type Position, type StatusChange } from "@eventbus/client";

interface Events {
  "document.indexed": { document: string };
  "chunk.embedded": { document: string; done: number; total: number };
  /** Called like one of the bus's own: to be heard under `*` only. */
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

// Events, by their type.
const stop: () => void = bus.on("document.indexed", (event) => {
  const document: string = event.data.document;
  const type: "document.indexed" = event.type;
  const topic: string = event.topic;
  const offset: number = event.offset;
  // @ts-expect-error: no such member of this event's data
  event.data.done;
  // @ts-expect-error: what has been received is not to be changed
  event.data = { document: "" };
  return [document, type, topic, offset];
});
stop();
// @ts-expect-error: no such event
bus.on("document.burnt", () => undefined);
// @ts-expect-error: a listener for another event
bus.on("document.indexed", (event: BusEvent<"chunk.embedded", Events["chunk.embedded"]>) => event);

// All of them, told apart by `type`.
bus.on("*", (event: AnyEvent<Events>) => {
  if (event.type === "chunk.embedded") return event.data.done / event.data.total;
  // @ts-expect-error: it may be any of the others
  return event.data.done;
});

// The bus's own words.
bus.on("gap", (gap: Gap) => gap.reason);
// @ts-expect-error: the bus's own word wins over an event of that name
bus.on("gap", (event) => event.data.width);
bus.on("status", (change: StatusChange) => change.retryInMs?.toFixed());
// @ts-expect-error: only known while waiting
bus.on("status", (change) => change.retryInMs.toFixed());
bus.on("error", (error) => (error instanceof BusError ? error.retryMs : error));
bus.on("position", (position: Position) => position.offset);

// By operation and by topic.
bus.op("9").on("document.indexed", (event) => event.data.document);
bus.op(9).on("*", (event) => event.type);
bus.topic("collection:7:*").on("chunk.embedded", (event) => event.data.total);
// @ts-expect-error: no such event
bus.op("9").on("document.burnt", () => undefined);
// @ts-expect-error: the status is the bus's, not an operation's
bus.op("9").on("status", () => undefined);

// Operations.
void bus.op(9).cancel().then(({ state, tasks }) => (state === "cancelled" ? 0 : tasks?.length));
void bus.op("9").info({ user: "43" });
void bus.operations({ state: "running", limit: 5 }).then(([newest]) => newest?.label);
void bus.operations({ state: ["queued", "running"], user: "43" });
// @ts-expect-error: no such state
void bus.operations({ state: "asleep" });
// @ts-expect-error: whose operation it is, is named by an object
void bus.op("9").cancel("43");
// @ts-expect-error: the newest one need not be there
void bus.operations().then(([newest]) => newest.label);
// @ts-expect-error: a topic cannot be stopped
bus.topic("user:42:*").cancel;

// Subscriptions.
const agreed: Promise<void> = bus.subscribe("collection:7:documents", { from: "5f.17" });
void agreed;
void bus.subscribe("collection:7:documents", { from: 0 });
void bus.unsubscribe("collection:7:documents");
// @ts-expect-error: an offset alone is no position
void bus.subscribe("collection:7:documents", { from: 17 });

// States.
const ended: boolean = bus.status === "closed";
// @ts-expect-error: no such status
const lost: boolean = bus.status === "lost";
// @ts-expect-error: the cursor is the bus's to move
bus.cursor = "user:42=0";
void [ended, lost];
bus.close();

// Options.
// @ts-expect-error: a prefix is needed
connect({});
// @ts-expect-error: no such transport
connect({ url: "/eventbus", transport: "carrier pigeon" });
// @ts-expect-error: a token goes stale, so it is a function
connect({ url: "/eventbus", token: "jwt" });
// @ts-expect-error: a misspelt option
connect({ url: "/eventbus", openTimeout: 5 });

// Without a map any event may come, and of its data nothing is known.
connect({ url: "/eventbus" }).on("whatever", (event) => {
  // @ts-expect-error: its shape is not known
  event.data.document;
});
