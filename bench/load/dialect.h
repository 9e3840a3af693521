/* The protocols of the contenders: how to authenticate, and when a connection is ready for events. */
#ifndef BENCH_DIALECT_H
#define BENCH_DIALECT_H

#include <stdbool.h>
#include <stddef.h>

/* The state of a connection that is not ready. */
struct setup {
    size_t number;      /* number of the connection */
    size_t collections; /* number of collections to subscribe to */
    size_t positions;   /* channels with a received history */
    bool hello, ready;
};

struct dialect {
    const char *name;
    const char *subprotocol;   /* NULL: none */
    const char *path_with_token; /* printf format of the request target with path and token; NULL: only the path */
    /* Writes the first message after the handshake. Returns its length, 0 for none. */
    size_t (*first_message)(const struct setup *setup, char *out, size_t room, const char *token);
    /* Handles a text that is not an event. Returns the length of the reply, 0 for none. */
    size_t (*on_text)(struct setup *setup, const char *text, size_t size, char *out, size_t room, const char *token);
};

/* Returns NULL for an unknown name. */
const struct dialect *dialect_named(const char *name);

#endif
