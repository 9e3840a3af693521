/* What the contenders say differently: the way in, and how it shows that a connection is ready for events. */
#ifndef BENCH_DIALECT_H
#define BENCH_DIALECT_H

#include <stdbool.h>
#include <stddef.h>

/* What is known of a connection that is not ready. */
struct setup {
    size_t number;      /* of the connection */
    size_t collections; /* that it asks for */
    size_t positions;   /* channels whose history has come */
    bool hello, ready;
};

struct dialect {
    const char *name;
    const char *subprotocol;   /* NULL: none */
    const char *path_with_token; /* printf format of the request target: path, token; NULL: the path alone */
    /* Writes the first message after the handshake: its length, 0 for none. */
    size_t (*first_message)(const struct setup *setup, char *out, size_t room, const char *token);
    /* Looks at a text that is no event; may write an answer: its length, 0 for none. */
    size_t (*on_text)(struct setup *setup, const char *text, size_t size, char *out, size_t room, const char *token);
};

/* NULL if there is none of that name. */
const struct dialect *dialect_named(const char *name);

#endif
