// socket.io with its Redis adapter: a room per user, WebSocket only. `node server.mjs PORT REDIS_URL SECRET`.
import { createHmac, timingSafeEqual } from "node:crypto";

import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, redisUrl, secret] = process.argv.slice(2);

/** The user that an HS256 token names; throws if it is not valid. */
function userOf(token) {
  const [head, body, signature] = token.split(".");
  const wanted = createHmac("sha256", secret).update(`${head}.${body}`).digest();
  const given = Buffer.from(signature, "base64url");
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) throw new Error("wrong signature");
  const claims = JSON.parse(Buffer.from(body, "base64url").toString());
  if (claims.exp * 1000 < Date.now()) throw new Error("expired");
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
