import { address } from "./urls.js";
import type { Open } from "./transport.js";
import type { Command } from "../protocol/messages.js";

/** With a token all goes into the first message; with cookies into the query, as there is no first message. */
export function webSocketAt(prefix: URL): Open {
  return ({ token, cursor, topics }, sink) => {
    const url = token === undefined ? address(prefix, "/ws", cursor, topics) : address(prefix, "/ws");
    url.protocol = url.protocol.replace("http", "ws");

    const socket = new WebSocket(url, "eventbus.v1");
    const send = (command: Command) => socket.send(JSON.stringify(command));
    socket.onopen = () => {
      if (token !== undefined) send({ do: "auth", token, cursor, topics });
    };
    socket.onmessage = ({ data }: MessageEvent<string>) => sink.frame(data);
    socket.onclose = ({ code, reason }) => sink.closed(code, reason);
    return { send, close: () => socket.close(1000) };
  };
}
