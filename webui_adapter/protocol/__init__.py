"""Commands, close codes, WebSocket frames and handshake, server-sent events. Pure."""
