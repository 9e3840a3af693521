/** The gateway's prefix, made absolute; `base` is the page. Throws where the two make no URL. */
export function absoluteUrl(prefix: string, base: string | undefined): URL {
  const url = new URL(prefix, base);
  url.search = url.hash = "";
  return url;
}

/** The address of a connection. Never holds a token: addresses end up in logs. */
export function connectionUrl(prefix: URL, path: string, cursor = "", topics: readonly string[] = []): URL {
  const url = new URL(prefix);
  url.pathname = url.pathname.replace(/\/*$/, path);
  if (cursor) url.searchParams.set("cursor", cursor);
  for (const topic of topics) url.searchParams.append("topic", topic);
  return url;
}
