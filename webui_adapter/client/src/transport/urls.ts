/**
 * The gateway's prefix as an absolute URL, resolved against `base`. Throws a `TypeError` if that
 * fails.
 */
export function absoluteUrl(prefix: string, base: string | undefined): URL {
  const url = new URL(prefix, base);
  url.search = url.hash = "";
  return url;
}

/** The URL of a connection. It never has a token, because proxies and servers log URLs. */
export function connectionUrl(prefix: URL, path: string, cursor = "", topics: readonly string[] = []): URL {
  const url = new URL(prefix);
  url.pathname = url.pathname.replace(/\/*$/, path);
  if (cursor) url.searchParams.set("cursor", cursor);
  for (const topic of topics) url.searchParams.append("topic", topic);
  return url;
}
