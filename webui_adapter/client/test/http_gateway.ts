import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";

export interface Request {
  readonly method: string;
  readonly url: URL;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** Starts an HTTP server that calls `answer` for each request and stops after the test. */
export async function serve(t: TestContext, answer: (request: Request, response: ServerResponse) => void): Promise<{ prefix: URL; requests: Request[] }> {
  const requests: Request[] = [];
  const server = createServer((incoming, response) => {
    let body = "";
    incoming.setEncoding("utf8").on("data", (text: string) => (body += text));
    incoming.on("end", () => {
      const { method = "", url = "", headers } = incoming;
      const request = { method, url: new URL(url, "http://host"), headers, body };
      requests.push(request);
      answer(request, response);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { prefix: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/eventbus`), requests };
}

export function beginStream(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
  response.flushHeaders();
}

export function write(response: ServerResponse, type: string, rest: object): void {
  response.write(`event: ${type}\ndata: ${JSON.stringify({ type, time: 0, ...rest })}\n\n`);
}
