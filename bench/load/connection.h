/* One client connection, and the counters of all connections. */
#ifndef BENCH_CONNECTION_H
#define BENCH_CONNECTION_H

#include "dialect.h"
#include "histogram.h"

#include <stddef.h>
#include <stdint.h>

#define STREAMS 4 /* events with a stream ("of":0 to 3) are ordered within their stream */
#define PORTS 16

enum state { UNUSED, OPENING, AUTHENTICATING, READY, DEAD };

struct connection {
    int fd;
    enum state state;
    struct setup setup;
    const char *user, *token;
    uint64_t expected[STREAMS]; /* sequence number of the next event of each stream */
    char *partial;          /* bytes of an incomplete frame */
    size_t partial_size, partial_room;
};

/* Faults since the last start. `strays` are events for another user. */
struct faults {
    uint64_t missing, repeated, strays, closes, violations;
};

/* Sums since the last mark. `received` and the faults are sums since the last start. */
struct counters {
    uint64_t received, events, bytes, reads, pings, unknown;
    struct faults faults;
    struct histogram latency; /* microseconds */
};

struct target {
    const struct dialect *dialect;
    const char *path;
    size_t collections;   /* additional channels of each connection, without other subscribers */
    int ports[PORTS];     /* the connections are distributed over them */
    size_t port_count;
};

/* Starts a non-blocking connect. Returns -1 and sets errno on failure. The number selects a source address. */
int connection_open(struct connection *connection, size_t number, const struct target *target);

/* Sends the request when the socket becomes writable for the first time. */
void connection_request(struct connection *connection, const struct target *target);

/* Reads once and counts the events. */
void connection_read(struct connection *connection, const struct target *target, struct counters *counters);

void connection_end(struct connection *connection);

#endif
