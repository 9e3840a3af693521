import type { Command } from "../protocol/messages.js";
import type { OpenTransport } from "./transport.js";
import { connectionUrl } from "./urls.js";

/**
 * Opens WebSocket connections.
 *
 * With a token, the first message carries token, cursor and topics. With cookies there is no first
 * message, and the query carries cursor and topics.
 */
export function webSocketTransport(prefix: URL): OpenTransport {
  return ({ token, cursor, topics }, listener) => {
    const url = token === undefined ? connectionUrl(prefix, "/ws", cursor, topics) : connectionUrl(prefix, "/ws");
    url.protocol = url.protocol.replace("http", "ws");

    const socket = new WebSocket(url, "eventbus.v1");
    const send = (command: Command) => socket.send(JSON.stringify(command));
    socket.onopen = () => {
      if (token !== undefined) send({ do: "auth", token, cursor, topics });
    };
    socket.onmessage = ({ data }: MessageEvent<string>) => listener.onFrame(data);
    socket.onclose = ({ code, reason }) => listener.onClose(code, reason);
    return { send, close: () => socket.close(1000) };
  };
}
