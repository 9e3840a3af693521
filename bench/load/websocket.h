/* The part of the RFC 6455 framing that the load generator needs. */
#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

/* The key is a constant, so the expected response is a constant too. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define WS_MAX_HEADER 14

struct frame {
    unsigned opcode;
    bool final;
    const char *payload;
    size_t length;
};

/* Reads one frame of a server. Returns the consumed bytes, 0 if it is incomplete, -1 if it is invalid (masked,
 * reserved bits). */
ssize_t ws_parse(const char *data, size_t size, struct frame *frame);

/* Returns the size of the server frame at `data`, or 0 if its header is incomplete. */
size_t ws_frame_size(const char *data, size_t size);

/* Writes a final frame to `out`, which has room for WS_MAX_HEADER + length bytes. Returns its size. The frames of a
 * client are masked with the key 0, which does not change the payload. */
size_t ws_build(char *out, unsigned opcode, const void *payload, size_t length, bool client);

#endif
