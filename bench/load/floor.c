/* The floor: the cost of the kernel for the same frames to the same connections, with a minimal server.
 *
 *   floor --port P --connections N --progress FILE [--coalesce 1] [--event-bytes 235]
 *
 * It accepts all connections, sends each a text, ignores tokens, and publishes the events itself. A command on stdin
 *
 *   fanout|direct RATE WARM SECONDS WINDOW
 *
 * writes RATE events/s (to all connections, or to one connection in turn) for WARM + SECONDS seconds, with `coalesce`
 * frames per write. RATE 0 is flat out: at most WINDOW events ahead of the events that the load generator has received
 * (the progress file, see main.c). The replies are `{"steady":...}` after WARM seconds and `{"published":n,...}` at
 * the end, as of bench/publisher.py. Any other line ends the program. */
#include "sha1.h"
#include "websocket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENT_SIZE 235 /* default size of an event as JSON in bytes */
#define MAX_EVENT_SIZE 65536
#define MAX_COALESCED 64
#define FLAT_OUT_PAUSE_US 200 /* between two checks of the window */
#define PACED_PAUSE_US 1000 /* shortest pause between two checks of the clock, as in bench/publisher.py */

struct server {
    int epoll, listener;
    int *sockets;
    size_t count, room;
    uint64_t coalesce;
    int event_size; /* size of an event as JSON in bytes */
    _Atomic uint64_t *progress;
};

struct run {
    bool direct;
    double rate, warm, seconds;
    uint64_t window;
};

static void fail(const char *what)
{
    fprintf(stderr, "floor: cannot %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t microseconds(clockid_t which)
{
    struct timespec clock;
    clock_gettime(which, &clock);
    return (uint64_t)clock.tv_sec * 1000000 + (uint64_t)clock.tv_nsec / 1000;
}

/* Writes all bytes. It waits for a full socket, because the window bounds the backlog. */
static void write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t done = send(fd, data, size, MSG_NOSIGNAL);
        if (done < 0 && errno == EAGAIN) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            poll(&writable, 1, 1000);
        } else if (done < 0) {
            return;
        } else {
            data += done;
            size -= (size_t)done;
        }
    }
}

static void upgrade(struct server *server, int fd)
{
    char request[8192], accept_key[29], answer[256], text[128], greeting[32];
    ssize_t size = recv(fd, request, sizeof request - 1, 0);
    if (size <= 0) {
        close(fd);
        return;
    }
    request[size] = '\0';
    char *key = strcasestr(request, "sec-websocket-key: ");
    if (!key || server->count == server->room)
        return;
    int length = snprintf(text, sizeof text, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key + 19);
    sha1_base64(text, (size_t)length, accept_key);
    length = snprintf(answer, sizeof answer,
                      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                      accept_key);
    write_all(fd, answer, (size_t)length);
    write_all(fd, greeting, ws_build(greeting, WS_TEXT, "ready", 5, false));
    server->sockets[server->count++] = fd;
    struct epoll_event again = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = fd};
    epoll_ctl(server->epoll, EPOLL_CTL_MOD, fd, &again);
}

/* The first input of a socket is its request; the second one is its end. */
static void on_readable(struct server *server, int fd)
{
    for (size_t i = 0; i < server->count; i++) {
        if (server->sockets[i] == fd) {
            server->sockets[i] = server->sockets[--server->count];
            close(fd);
            return;
        }
    }
    upgrade(server, fd);
}

static void accept_one(struct server *server)
{
    int on = 1, fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = fd};
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Writes a frame with an event of `event_size` bytes, as in docs/reference/protocol.md. Returns its size. */
static size_t build_event(char *frame, int event_size, uint64_t sequence, uint64_t scheduled, const char *topic)
{
    static char text[2 * MAX_EVENT_SIZE];
    int size = snprintf(text, sizeof text,
                        "{\"offset\":%llu,\"id\":\"01934e7a-0000-7000-8000-%012llu\",\"type\":\"bench.tick\",\"topic\":\"%s\",\"time\":%llu,"
                        "\"data\":{\"seq\":%llu,\"at\":%llu,\"pad\":\"",
                        (unsigned long long)sequence + 1, (unsigned long long)sequence, topic,
                        (unsigned long long)scheduled / 1000, (unsigned long long)sequence, (unsigned long long)scheduled);
    int pad = event_size - size - 3;
    if (pad > 0) {
        memset(text + size, 'x', (size_t)pad);
        size += pad;
    }
    memcpy(text + size, "\"}}", 3);
    size += 3;
    return ws_build(frame, WS_TEXT, text, (size_t)size, false);
}

/* Sends the events [first, first + many) to all connections, in one write per connection. */
static void fan_out(const struct server *server, uint64_t first, uint64_t many, const uint64_t *scheduled)
{
    static char frames[(MAX_EVENT_SIZE + WS_MAX_HEADER) * MAX_COALESCED];
    size_t size = 0;
    for (uint64_t i = 0; i < many; i++)
        size += build_event(frames + size, server->event_size, first + i, scheduled[i], "system:bench");
    for (size_t i = 0; i < server->count; i++)
        write_all(server->sockets[i], frames, size);
}

/* Sends the event `number` to one connection, as its next event. */
static void direct(const struct server *server, uint64_t number, uint64_t scheduled)
{
    static char frame[MAX_EVENT_SIZE + WS_MAX_HEADER];
    char topic[64];
    uint64_t user = number % server->count;
    /* The topic is as long as that of a user. It has no user, because the floor does not read tokens. */
    snprintf(topic, sizeof topic, "anon:u%05llu:operation:bench", (unsigned long long)user);
    size_t size = build_event(frame, server->event_size, number / server->count, scheduled, topic);
    write_all(server->sockets[user], frame, size);
}

/* Returns the number of events that may be published by now. */
static uint64_t allowed(const struct server *server, const struct run *run, uint64_t begin, uint64_t published)
{
    if (run->rate > 0)
        return (uint64_t)((double)(microseconds(CLOCK_MONOTONIC) - begin) / 1e6 * run->rate) + 1;
    uint64_t received = atomic_load_explicit(server->progress, memory_order_relaxed) / (run->direct ? 1 : server->count);
    return received + run->window > published ? received + run->window : published;
}

/* Returns microseconds until the next event is due, at least PACED_PAUSE_US, so that a fast load has batches. */
static useconds_t until_due(const struct run *run, uint64_t begin, uint64_t published)
{
    double due = (double)begin + (double)published / run->rate * 1e6, now = (double)microseconds(CLOCK_MONOTONIC);
    return due - now > PACED_PAUSE_US ? (useconds_t)(due - now) : PACED_PAUSE_US;
}

static uint64_t publish(const struct server *server, const struct run *run, uint64_t first, uint64_t many, uint64_t begin)
{
    uint64_t scheduled[MAX_COALESCED], now = microseconds(CLOCK_REALTIME);
    for (uint64_t i = 0; i < many; i++)
        scheduled[i] = run->rate > 0 ? begin + (uint64_t)((double)(first + i) / run->rate * 1e6) : now;
    if (!run->direct) {
        fan_out(server, first, many, scheduled);
        return many;
    }
    for (uint64_t i = 0; i < many; i++)
        direct(server, first + i, scheduled[i]);
    return many;
}

static void perform(const struct server *server, const struct run *run)
{
    uint64_t begin = microseconds(CLOCK_MONOTONIC), wall = microseconds(CLOCK_REALTIME), published = 0;
    uint64_t warm_end = begin + (uint64_t)(run->warm * 1e6), end = warm_end + (uint64_t)(run->seconds * 1e6);
    bool steady = false;
    for (uint64_t now = begin; now < end; now = microseconds(CLOCK_MONOTONIC)) {
        uint64_t until = allowed(server, run, begin, published);
        if (until < published + server->coalesce)
            usleep(run->rate > 0 ? until_due(run, begin, published) : FLAT_OUT_PAUSE_US);
        while (published + server->coalesce <= until)
            published += publish(server, run, published, server->coalesce, wall);
        if (!steady && now >= warm_end) {
            steady = true;
            printf("{\"steady\":true,\"window\":%llu}\n", (unsigned long long)run->window);
            fflush(stdout);
        }
    }
    printf("{\"published\":%llu,\"cpu\":0}\n", (unsigned long long)published);
    fflush(stdout);
}

/* Runs one command. Returns false to end. */
static bool run_command(const struct server *server)
{
    char line[256], kind[16];
    struct run run;
    unsigned long long window;
    if (!fgets(line, sizeof line, stdin) ||
        sscanf(line, "%15s %lf %lf %lf %llu", kind, &run.rate, &run.warm, &run.seconds, &window) != 5)
        return false;
    run.direct = strcmp(kind, "direct") == 0;
    run.window = window;
    if (server->count > 0)
        perform(server, &run);
    return true;
}

static void configure(struct server *server, int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *progress = "";
    int on = 1;
    server->coalesce = 1;
    server->event_size = EVENT_SIZE;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0)
            address.sin_port = htons((uint16_t)atoi(argv[i + 1]));
        else if (strcmp(argv[i], "--connections") == 0)
            server->room = strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--coalesce") == 0)
            server->coalesce = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--event-bytes") == 0)
            server->event_size = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--progress") == 0)
            progress = argv[i + 1];
    }
    if (server->coalesce < 1 || server->coalesce > MAX_COALESCED)
        server->coalesce = 1;
    if (server->event_size < 0 || server->event_size > MAX_EVENT_SIZE)
        server->event_size = EVENT_SIZE;
    int fd = open(progress, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        fail("open the progress file");
    server->progress = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    server->sockets = calloc(server->room, sizeof *server->sockets);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (server->progress == MAP_FAILED || !server->sockets ||
        bind(server->listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(server->listener, 2048) < 0)
        fail("start");
}

int main(int argc, char **argv)
{
    static struct server server;
    configure(&server, argc, argv);
    struct epoll_event listening = {.events = EPOLLIN, .data.fd = server.listener};
    struct epoll_event commands = {.events = EPOLLIN, .data.fd = STDIN_FILENO}, event;
    server.epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(server.epoll, EPOLL_CTL_ADD, server.listener, &listening);
    if (epoll_ctl(server.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &commands) < 0)
        fail("create epoll");
    setvbuf(stdin, NULL, _IONBF, 0);
    while (epoll_wait(server.epoll, &event, 1, -1) >= 0 || errno == EINTR) {
        if (event.data.fd == server.listener)
            accept_one(&server);
        else if (event.data.fd != STDIN_FILENO)
            on_readable(&server, event.data.fd);
        else if (!run_command(&server))
            break;
    }
    return 0;
}
