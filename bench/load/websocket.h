/* RFC 6455 framing, as little of it as a load generator needs. */
#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

/* The key is a constant, so the answer to it is one, too. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define WS_MAX_HEADER 14

struct frame {
    unsigned opcode;
    bool final;
    const char *payload;
    size_t length;
};

/* Reads one frame of a server: bytes consumed, 0 if it is not whole yet, -1 if it is none (masked, reserved bits). */
ssize_t ws_parse(const char *data, size_t size, struct frame *frame);

/* Bytes that a frame of a server starting at `data` will have in all, 0 if the header is not whole yet. */
size_t ws_frame_size(const char *data, size_t size);

/* Writes a final frame to `out`, which has room for WS_MAX_HEADER + length bytes: its size. A client's frames are
 * masked with the key 0, which leaves the payload as it is. */
size_t ws_build(char *out, unsigned opcode, const void *payload, size_t length, bool client);

#endif
