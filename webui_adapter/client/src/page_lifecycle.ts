// The page's lifecycle: network up or down, page shown or hidden.

export interface PageLifecycleListener {
  online(): void;
  offline(): void;
  /** The page is in the foreground again. */
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
  addEventListener("online", () => listener.online(), { signal });
  addEventListener("offline", () => listener.offline(), { signal });
  addEventListener("pagehide", () => listener.hidden(), { signal });
  if (typeof document !== "undefined") {
    const onChange = () => (document.hidden ? listener.hidden() : listener.shown());
    document.addEventListener("visibilitychange", onChange, { signal });
  }
  return () => end.abort();
}
