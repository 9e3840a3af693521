import { absoluteUrl } from "./transport/urls.js";
import { DEFAULT_BACKOFF } from "./transport/backoff.js";
import { EventBus } from "./event_bus.js";
import { Cursor, parseCursor } from "./state/cursor.js";
import { fetchEventSource } from "./transport/fetch_event_source.js";
import { watchPageLifecycle } from "./page_lifecycle.js";
import { cursorStorage } from "./state/cursor_storage.js";
import { isPattern } from "./protocol/topics.js";
import type { Bus, Options } from "./types.js";
import { webSocketTransport } from "./transport/websocket.js";
import { systemClock } from "./clock_and_random.js";

export { BusError } from "./protocol/errors.js";
export type * from "./types.js";

const OPEN_TIMEOUT_MS = 10_000;

/**
 * Connects to the gateway and stays connected until `close()`. Throws a `TypeError` for options that
 * cannot be meant; whatever goes wrong later is said by the events `status`, `gap` and `error`.
 *
 * ```ts
 * const bus = connect<Events>({ url: "/eventbus" });
 * bus.on("document.indexed", (event) => show(event.data.document));
 * bus.on("gap", () => refetch());
 * ```
 */
export function connect<Events extends object = Record<string, unknown>>(options: Options): Bus<Events> {
  const { cursor = "", topics = [], backoff } = options;
  const prefix = absoluteUrl(options.url, (globalThis as { location?: Location }).location?.href);
  const storage = cursorStorage(options.storageKey);
  const initial = parseCursor(cursor);
  if (!initial) throw new TypeError(`not a cursor: ${cursor}`);
  for (const topic of topics) if (!isPattern(topic)) throw new TypeError(`not a pattern: ${topic}`);

  // What the page was rendered with is newer than what an earlier page has kept; the first one counts.
  const resumeCursor = new Cursor([...initial, ...(parseCursor(storage.load()) ?? [])]);
  const bus = new EventBus<Events>(
    {
      topics,
      transport: options.transport ?? "auto",
      transports: { websocket: webSocketTransport(prefix), sse: fetchEventSource(prefix) },
      token: options.token,
      backoff: { ...DEFAULT_BACKOFF, ...backoff },
      openTimeoutMs: options.openTimeoutMs ?? OPEN_TIMEOUT_MS,
    },
    resumeCursor,
    systemClock,
    () => {
      save();
      stopWatching();
    },
  );
  const save = () => storage.save(bus.cursor);
  const stopWatching = watchPageLifecycle({
    online: () => bus.reconnectNow(),
    shown: () => bus.reconnectNow(),
    offline: () => bus.offline(),
    hidden: save,
  });
  bus.open();
  return bus;
}
