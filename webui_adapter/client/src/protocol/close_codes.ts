// Close codes: the range of a code decides what the client does after a connection ended.
// A code below 1000 is the HTTP status of an SSE request.

/** An operator or the application has revoked the token or ended the session. */
export const REVOKED = 4102;

/** Reconnect with jitter, reconnect with a fresh token, or stop. */
export type Action = "reconnect" | "refresh" | "stop";

// The client closed the connection (1000), or it violated the protocol and would do so again.
const NEVER_RECONNECT = new Set([1000, 1002, 1003, 1007, 1008, 1009]);

export function actionFor(code: number): Action {
  if (code === 401 || (code >= 4100 && code < 4200)) return "refresh";
  // The gateway answers the same request with 400 or 403 every time. Other statuses (404, 502, 503)
  // are temporary: deployments and proxies cause them.
  if (code === 400 || code === 403 || NEVER_RECONNECT.has(code) || (code >= 4500 && code < 4600)) return "stop";
  return "reconnect";
}
