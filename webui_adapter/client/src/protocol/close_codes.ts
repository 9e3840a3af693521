// The range of a close code says what to do. Codes below 1000 are HTTP statuses of an SSE request.

/** Come back with full jitter; come back with a fresh token; do not come back. */
export type Action = "reconnect" | "refresh" | "stop";

// The client's own going, and violations that would only be repeated.
const NEVER_RECONNECT = new Set([1000, 1002, 1003, 1007, 1008, 1009]);

export function actionFor(code: number): Action {
  if (code === 401 || (code >= 4100 && code < 4200)) return "refresh";
  // 400, 403: the same request will be refused again. Other statuses (404, 502, 503, ...) come and go
  // with deployments and proxies.
  if (code === 400 || code === 403 || NEVER_RECONNECT.has(code) || (code >= 4500 && code < 4600)) return "stop";
  return "reconnect";
}
