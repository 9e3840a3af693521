/* One client connection, and what all of them together have received. */
#ifndef BENCH_CONNECTION_H
#define BENCH_CONNECTION_H

#include "dialect.h"
#include "histogram.h"

#include <stddef.h>
#include <stdint.h>

#define STREAMS 4 /* events that name a stream ("of":0 to 3) are in order within it only */
#define PORTS 16

enum state { UNUSED, OPENING, AUTHENTICATING, READY, DEAD };

struct connection {
    int fd;
    enum state state;
    struct setup setup;
    const char *user, *token;
    uint64_t expected[STREAMS]; /* sequence number of the event that has to come next, for each stream */
    char *partial;          /* bytes of a frame that is not whole yet */
    size_t partial_size, partial_room;
};

/* Since the last start, so that a fault is one whenever it happened. `strays`: events for another user. */
struct faults {
    uint64_t missing, repeated, strays, closes, violations;
};

/* Sums since the last mark, but for `received` and the faults, which run since the last start. */
struct counters {
    uint64_t received, events, bytes, reads, pings, unknown;
    struct faults faults;
    struct histogram latency; /* microseconds */
};

struct target {
    const struct dialect *dialect;
    const char *path;
    size_t collections;   /* that each connection watches besides; nobody else watches them */
    int ports[PORTS];     /* connections are dealt out over them in turn */
    size_t port_count;
};

/* Begins to connect, not waiting: -1 with errno if it cannot. Connections are numbered to choose a source address. */
int connection_open(struct connection *connection, size_t number, const struct target *target);

/* The socket has become writable for the first time: sends the request. */
void connection_request(struct connection *connection, const struct target *target);

/* Reads what is there, once, and counts it. */
void connection_read(struct connection *connection, const struct target *target, struct counters *counters);

void connection_end(struct connection *connection);

#endif
