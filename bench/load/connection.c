#include "connection.h"
#include "websocket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_ROOM (256 * 1024)
#define CONNECTIONS_PER_SOURCE 10000 /* per source address 127.0.0.2, .3, ...; below the number of local ports */

/* The read buffer of all connections. A connection only stores the bytes of an incomplete frame. */
static char *buffer;
static size_t buffer_room;

int connection_open(struct connection *connection, size_t number, const struct target *target)
{
    struct sockaddr_in source = {.sin_family = AF_INET}, server = {.sin_family = AF_INET};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(number / CONNECTIONS_PER_SOURCE));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons((uint16_t)target->ports[number % target->port_count]);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* The port is chosen at connect(), so it must be free only for this server. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0 ||
        (connect(fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)) {
        close(fd);
        return -1;
    }
    connection->fd = fd;
    connection->state = OPENING;
    connection->setup = (struct setup){.number = number, .collections = target->collections};
    connection->partial_size = 0;
    return fd;
}

void connection_end(struct connection *connection)
{
    if (connection->state != UNUSED && connection->state != DEAD)
        close(connection->fd);
    connection->state = DEAD;
    free(connection->partial);
    connection->partial = NULL;
    connection->partial_room = connection->partial_size = 0;
}

/* Messages of a client are small and rare. If one does not fit into the socket buffer, the connection ends. */
static void send_all(struct connection *connection, const char *data, size_t size)
{
    if (send(connection->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        connection_end(connection);
}

static void send_frame(struct connection *connection, unsigned opcode, const char *payload, size_t length)
{
    char frame[WS_MAX_HEADER + 4096];
    if (length > sizeof frame - WS_MAX_HEADER) {
        connection_end(connection);
        return;
    }
    send_all(connection, frame, ws_build(frame, opcode, payload, length, true));
}

void connection_request(struct connection *connection, const struct target *target)
{
    const struct dialect *dialect = target->dialect;
    char request[8192], where[4096];
    snprintf(where, sizeof where, dialect->path_with_token ? dialect->path_with_token : "%s", target->path, connection->token);
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                          where, target->ports[0], dialect->subprotocol ? "Sec-WebSocket-Protocol: " : "",
                          dialect->subprotocol ? dialect->subprotocol : "", dialect->subprotocol ? "\r\n" : "");
    if (length < 0 || (size_t)length >= sizeof request)
        connection_end(connection);
    else
        send_all(connection, request, (size_t)length);
}

/* Returns the length of the response to the request, 0 if it is incomplete, -1 if it is a refusal. */
static ssize_t handshake(const char *data, size_t size)
{
    const char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (size < 12 || memcmp(data, "HTTP/1.1 101", 12) != 0 || !memmem(data, size, WS_ACCEPT, strlen(WS_ACCEPT))) {
        fprintf(stderr, "cannot connect: %.*s\n", (int)(end - data), data);
        return -1;
    }
    return end - data + 4;
}

/* Reads the number after `key`. The frames of a run are similar, so the search starts at the last position. */
static bool number_after(const char *text, size_t size, const char *key, size_t *hint, uint64_t *value)
{
    size_t length = strlen(key);
    const char *end = text + size, *at = text + *hint;
    if (*hint + length > size || memcmp(at, key, length) != 0) {
        at = memmem(text, size, key, length);
        if (!at)
            return false;
        *hint = (size_t)(at - text);
    }
    *value = 0;
    for (at += length; at < end && *at >= '0' && *at <= '9'; at++)
        *value = *value * 10 + (uint64_t)(*at - '0');
    return true;
}

/* Whether the topic of the event has another user. Broadcast events and the events of the floor have none. */
static bool is_misrouted(const struct connection *connection, const struct frame *frame)
{
    static const char key[] = "\"topic\":\"user:";
    static size_t hint;
    const char *text = frame->payload, *end = text + frame->length, *at = text + hint;
    if (hint + sizeof key > frame->length || memcmp(at, key, sizeof key - 1) != 0) {
        at = memmem(text, frame->length, key, sizeof key - 1);
        if (!at)
            return false;
        hint = (size_t)(at - text);
    }
    size_t length = strlen(connection->user);
    at += sizeof key - 1;
    return at + length >= end || memcmp(at, connection->user, length) != 0 || at[length] != ':';
}

/* Counts a text if it is an event, which has a sequence number and a scheduled time in microseconds. */
static bool count_event(struct connection *connection, const struct frame *frame, uint64_t now, struct counters *counters)
{
    static size_t sequence_hint, time_hint, stream_hint;
    uint64_t sequence, scheduled, stream;
    if (!number_after(frame->payload, frame->length, "\"seq\":", &sequence_hint, &sequence) ||
        !number_after(frame->payload, frame->length, "\"at\":", &time_hint, &scheduled))
        return false;
    if (!number_after(frame->payload, frame->length, "\"of\":", &stream_hint, &stream) || stream >= STREAMS)
        stream = 0;
    uint64_t *expected = &connection->expected[stream];
    counters->received++;
    counters->events++;
    counters->bytes += frame->length;
    counters->faults.strays += is_misrouted(connection, frame);
    histogram_add(&counters->latency, now > scheduled ? now - scheduled : 0);
    if (sequence < *expected) {
        counters->faults.repeated++;
    } else {
        counters->faults.missing += sequence - *expected;
        *expected = sequence + 1;
    }
    return true;
}

static void on_text(struct connection *connection, const struct frame *frame, const struct target *target, struct counters *counters)
{
    char answer[4096];
    size_t length = target->dialect->on_text(&connection->setup, frame->payload, frame->length, answer, sizeof answer, connection->token);
    counters->unknown++;
    if (length)
        send_frame(connection, WS_TEXT, answer, length);
    if (connection->state == AUTHENTICATING && connection->setup.ready)
        connection->state = READY;
}

static void on_frame(struct connection *connection, const struct frame *frame, uint64_t now, const struct target *target, struct counters *counters)
{
    switch (frame->opcode) {
    case WS_TEXT:
        if (!frame->final)
            counters->faults.violations++;
        else if (!count_event(connection, frame, now, counters))
            on_text(connection, frame, target, counters);
        break;
    case WS_PING:
        counters->pings++;
        send_frame(connection, WS_PONG, frame->payload, frame->length);
        break;
    case WS_CLOSE:
        counters->faults.closes++;
        if (frame->length >= 2)
            fprintf(stderr, "closed: %d %.*s\n", (unsigned char)frame->payload[0] << 8 | (unsigned char)frame->payload[1],
                    (int)frame->length - 2, frame->payload + 2);
        connection_end(connection);
        break;
    case WS_PONG:
        break;
    default:
        counters->faults.violations++;
    }
}

static void keep_partial_frame(struct connection *connection, const char *data, size_t size)
{
    if (size > connection->partial_room) {
        free(connection->partial);
        connection->partial = malloc(size);
        connection->partial_room = connection->partial ? size : 0;
    }
    if (size && connection->partial)
        memcpy(connection->partial, data, size);
    connection->partial_size = connection->partial ? size : 0;
}

/* Handles all complete frames. Returns the number of consumed bytes. */
static size_t parse_frames(struct connection *connection, const char *data, size_t size, const struct target *target, struct counters *counters)
{
    struct timespec clock;
    size_t done = 0;
    if (connection->state == OPENING) {
        char first[4096];
        ssize_t used = handshake(data, size);
        if (used <= 0) {
            if (used < 0)
                connection_end(connection);
            return 0;
        }
        done = (size_t)used;
        connection->state = AUTHENTICATING;
        size_t length = target->dialect->first_message(&connection->setup, first, sizeof first, connection->token);
        if (length)
            send_frame(connection, WS_TEXT, first, length);
    }
    clock_gettime(CLOCK_REALTIME, &clock);
    uint64_t now = (uint64_t)clock.tv_sec * 1000000 + (uint64_t)clock.tv_nsec / 1000;
    while (done < size && connection->state != DEAD) {
        struct frame frame;
        ssize_t used = ws_parse(data + done, size - done, &frame);
        if (used == 0)
            break;
        if (used < 0) {
            counters->faults.violations++;
            connection_end(connection);
            break;
        }
        on_frame(connection, &frame, now, target, counters);
        done += (size_t)used;
    }
    return done;
}

void connection_read(struct connection *connection, const struct target *target, struct counters *counters)
{
    if (buffer_room < connection->partial_size + READ_ROOM) {
        buffer_room = connection->partial_size + READ_ROOM;
        buffer = realloc(buffer, buffer_room);
        if (!buffer)
            abort();
    }
    if (connection->partial_size)
        memcpy(buffer, connection->partial, connection->partial_size);
    ssize_t got = recv(connection->fd, buffer + connection->partial_size, buffer_room - connection->partial_size, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        counters->faults.closes++;
        connection_end(connection);
        return;
    }
    counters->reads++;
    size_t size = connection->partial_size + (size_t)got;
    size_t done = parse_frames(connection, buffer, size, target, counters);
    if (connection->state != DEAD)
        keep_partial_frame(connection, buffer + done, size - done);
}
