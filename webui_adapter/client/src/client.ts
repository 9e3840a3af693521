import { systemClock } from "./clock_and_random.js";
import { EventBus } from "./event_bus.js";
import { watchPageLifecycle } from "./page_lifecycle.js";
import { isPattern } from "./protocol/topics.js";
import { Cursor, parseCursor } from "./state/cursor.js";
import { cursorStorage } from "./state/cursor_storage.js";
import { DEFAULT_KEPT_BOUNDS } from "./state/kept_events.js";
import { DEFAULT_BACKOFF } from "./transport/backoff.js";
import { fetchEventSource } from "./transport/fetch_event_source.js";
import { absoluteUrl } from "./transport/urls.js";
import { webSocketTransport } from "./transport/websocket.js";
import type { Bus, Options } from "./types.js";

export { BusError } from "./protocol/errors.js";
export type * from "./operations.js";
export type * from "./types.js";

const OPEN_TIMEOUT_MS = 10_000;

/**
 * Connects to the gateway and reconnects until `close()`.
 *
 * It returns before the connection is open. Later failures arrive as the events `status`, `gap` and
 * `error`.
 *
 * ```ts
 * const bus = connect<Events>({ url: "/eventbus" });
 * bus.on("document.indexed", (event) => show(event.data.document));
 * bus.on("gap", () => refetch());
 * ```
 *
 * @typeParam Events - Event types of the application, mapped to the shape of their `data`.
 *   `python -m eventbus schema MODULE --typescript` generates it.
 * @param options - Only `url` is required.
 * @returns The bus, with status `connecting`.
 * @throws TypeError if `url`, `cursor` or `topics` has the wrong form.
 */
export function connect<Events extends object = Record<string, unknown>>(options: Options): Bus<Events> {
  const { cursor = "", topics = [], backoff } = options;
  const prefix = absoluteUrl(options.url, (globalThis as { location?: Location }).location?.href);
  const storage = cursorStorage(options.storageKey);
  const initial = parseCursor(cursor);
  if (!initial) throw new TypeError(`cannot connect: ${cursor} is not a cursor such as user:42=5f.17`);
  for (const topic of topics) {
    if (!isPattern(topic)) throw new TypeError(`cannot connect: ${topic} is not a pattern such as collection:7:*`);
  }

  // The rendered cursor is newer than the stored one. The first position of a channel counts.
  const stored = storage.load();
  const resumeCursor = new Cursor([...initial, ...(parseCursor(stored.split("\n")[0] ?? "") ?? [])]);
  const bus = new EventBus<Events>(
    {
      topics,
      transport: options.transport ?? "auto",
      transports: { websocket: webSocketTransport(prefix), sse: fetchEventSource(prefix) },
      token: options.token,
      backoff: { ...DEFAULT_BACKOFF, ...backoff },
      openTimeoutMs: options.openTimeoutMs ?? OPEN_TIMEOUT_MS,
      lateListeners: { ...DEFAULT_KEPT_BOUNDS, ...options.lateListeners },
      stored,
    },
    resumeCursor,
    systemClock,
    () => {
      save();
      stopWatching();
    },
  );
  const save = () => storage.save(bus.stored);
  const stopWatching = watchPageLifecycle({
    shown: () => bus.checkNow(),
    offline: () => bus.offline(),
    hidden: save,
  });
  bus.open();
  return bus;
}
