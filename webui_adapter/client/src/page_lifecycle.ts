// The page's lifecycle: network up or down, page shown or hidden.

export interface PageLifecycleListener {
  offline(): void;
  /** The page is online again, in the foreground again, or resumed. */
  shown(): void;
  /** The page is hidden or unloads. The browser may not notify it again. */
  hidden(): void;
}

/**
 * Listens to the page's lifecycle. Returns a function that stops listening.
 *
 * A worker has no `document`. Outside a browser there are no such events, and this does nothing.
 */
export function watchPageLifecycle(listener: PageLifecycleListener): () => void {
  if (typeof addEventListener !== "function") return () => undefined;
  const end = new AbortController();
  const { signal } = end;
  const page = (globalThis as { document?: Document }).document;
  const on = (type: string, call: () => void, target: EventTarget = globalThis) => {
    target.addEventListener(type, call, { signal });
  };
  on("online", () => listener.shown());
  on("pageshow", () => listener.shown());
  on("offline", () => listener.offline());
  on("pagehide", () => listener.hidden());
  on("resume", () => listener.shown(), page);
  on("visibilitychange", () => (page?.hidden ? listener.hidden() : listener.shown()), page);
  return () => end.abort();
}
