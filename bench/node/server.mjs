// socket.io with its Redis adapter: a room per user, WebSocket only.
// Usage: node server.mjs PORT REDIS_URL SECRET
import { createHmac, timingSafeEqual } from "node:crypto";

import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, redisUrl, secret] = process.argv.slice(2);

/** Returns the user of an HS256 token. Throws if the token is not valid. */
function userOf(token) {
  const [head, body, signature] = token.split(".");
  const expected = createHmac("sha256", secret).update(`${head}.${body}`).digest();
  const given = Buffer.from(signature, "base64url");
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) throw new Error("cannot accept the token: wrong signature");
  const claims = JSON.parse(Buffer.from(body, "base64url").toString());
  if (claims.exp * 1000 < Date.now()) throw new Error("cannot accept the token: it has expired");
  return claims.sub;
}

const publisher = createClient({ url: redisUrl });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);

const server = new Server({
  adapter: createAdapter(publisher, subscriber),
  transports: ["websocket"],
  serveClient: false,
});
server.use((socket, next) => {
  try {
    socket.join(userOf(socket.handshake.auth.token));
    next();
  } catch (error) {
    next(error);
  }
});
server.listen(Number(port));
