/* The load generator: opens many WebSocket connections to one server, checks each event and measures its latency.
 *
 *   load --port P[,P…] --connections N --tokens FILE --dialect eventbus|plain|socketio --path /ws --progress FILE
 *        [--in-flight 64] [--collections 0]
 *
 * With several ports, the connections are distributed over them. `--collections` is the number of additional channels
 * of each connection, without other subscribers.
 *
 * The file of tokens has a line per connection: user, space, token. Commands are lines on stdin. The reply to each is
 * one line of JSON on stdout:
 *
 *   open     opens and authenticates all connections, a bounded number in parallel, at most 60 s
 *   start    resets all counters; each connection expects event 0 next
 *   mark     resets the counters, except `received` and the faults (missing, repeated, strays, closes, violations)
 *   report   returns the counters since the last mark or start
 *   quit     closes all connections
 *
 * The progress file is mapped into memory. It has the number of events that all connections have received since
 * `start`, as an unsigned 64-bit integer in the byte order of the machine. The publisher of a closed loop reads it. */
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define OPEN_SECONDS 60.0
#define BATCH 512

struct generator {
    struct target target;
    struct connection *connections;
    size_t count, in_flight_limit;
    int epoll;
    struct counters counters;
    size_t in_state[DEAD + 1]; /* connections by state */
    double since; /* monotonic time of the last mark in seconds */
    double cpu_user, cpu_system; /* CPU time at the last mark in seconds */
    _Atomic uint64_t *progress;
};

static void fail(const char *what)
{
    fprintf(stderr, "load: cannot %s: %s\n", what, strerror(errno));
    exit(1);
}

static double monotonic(void)
{
    struct timespec clock;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    return (double)clock.tv_sec + (double)clock.tv_nsec / 1e9;
}

static void own_cpu(double *user, double *system_)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    *user = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6;
    *system_ = (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
}

static void mark(struct generator *generator)
{
    struct counters old = generator->counters;
    generator->counters = (struct counters){.received = old.received, .faults = old.faults};
    generator->since = monotonic();
    own_cpu(&generator->cpu_user, &generator->cpu_system);
}

static void start(struct generator *generator)
{
    for (size_t i = 0; i < generator->count; i++)
        memset(generator->connections[i].expected, 0, sizeof generator->connections[i].expected);
    generator->counters.received = 0;
    generator->counters.faults = (struct faults){0};
    atomic_store_explicit(generator->progress, 0, memory_order_relaxed);
    mark(generator);
}

static void report(const struct generator *generator)
{
    const struct counters *t = &generator->counters;
    double user, system_;
    own_cpu(&user, &system_);
    printf("{\"seconds\":%.6f,\"cpu_user\":%.6f,\"cpu_system\":%.6f,\"connections\":%zu,\"received\":%llu,\"events\":%llu,"
           "\"bytes\":%llu,\"reads\":%llu,\"pings\":%llu,\"others\":%llu,"
           "\"missing\":%llu,\"repeated\":%llu,\"strays\":%llu,\"closes\":%llu,\"violations\":%llu,",
           monotonic() - generator->since, user - generator->cpu_user, system_ - generator->cpu_system,
           generator->in_state[READY], (unsigned long long)t->received, (unsigned long long)t->events,
           (unsigned long long)t->bytes, (unsigned long long)t->reads, (unsigned long long)t->pings,
           (unsigned long long)t->unknown, (unsigned long long)t->faults.missing, (unsigned long long)t->faults.repeated,
           (unsigned long long)t->faults.strays, (unsigned long long)t->faults.closes,
           (unsigned long long)t->faults.violations);
    printf("\"latency_us\":{\"p50\":%llu,\"p90\":%llu,\"p99\":%llu,\"p999\":%llu,\"max\":%llu}}\n",
           (unsigned long long)histogram_quantile(&t->latency, .5), (unsigned long long)histogram_quantile(&t->latency, .9),
           (unsigned long long)histogram_quantile(&t->latency, .99),
           (unsigned long long)histogram_quantile(&t->latency, .999), (unsigned long long)t->latency.largest);
}

static void handle(struct generator *generator, const struct epoll_event *event)
{
    struct connection *connection = event->data.ptr;
    enum state before = connection->state;
    if (before == DEAD)
        return;
    if (event->events & EPOLLOUT) {
        struct epoll_event reading = {.events = EPOLLIN, .data.ptr = connection};
        epoll_ctl(generator->epoll, EPOLL_CTL_MOD, connection->fd, &reading);
        connection_request(connection, &generator->target);
    }
    if (connection->state != DEAD && event->events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        connection_read(connection, &generator->target, &generator->counters);
    generator->in_state[before]--;
    generator->in_state[connection->state]++;
    atomic_store_explicit(generator->progress, generator->counters.received, memory_order_relaxed);
}

/* Handles the events of the sockets. Returns whether a command waits on stdin. */
static bool poll_once(struct generator *generator, int timeout_ms)
{
    struct epoll_event events[BATCH];
    bool command = false;
    int ready = epoll_wait(generator->epoll, events, BATCH, timeout_ms);
    for (int i = 0; i < ready; i++) {
        if (events[i].data.ptr)
            handle(generator, &events[i]);
        else
            command = true;
    }
    return command;
}

static void open_one(struct generator *generator, size_t number)
{
    struct connection *connection = &generator->connections[number];
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = connection};
    int fd = connection_open(connection, number, &generator->target);
    if (fd < 0 || epoll_ctl(generator->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        fprintf(stderr, "load: cannot open connection %zu: %s\n", number, strerror(errno));
        connection_end(connection);
    }
    generator->in_state[UNUSED]--;
    generator->in_state[connection->state]++;
}

static void open_all(struct generator *generator)
{
    double begin = monotonic(), user, system_, user_before, system_before;
    size_t next = 0, *ready = &generator->in_state[READY], *dead = &generator->in_state[DEAD];
    own_cpu(&user_before, &system_before);
    while (*ready + *dead < generator->count && monotonic() - begin < OPEN_SECONDS) {
        while (next < generator->count && next - *ready - *dead < generator->in_flight_limit)
            open_one(generator, next++);
        poll_once(generator, 100);
    }
    own_cpu(&user, &system_);
    printf("{\"ready\":%zu,\"dead\":%zu,\"seconds\":%.6f,\"cpu_user\":%.6f,\"cpu_system\":%.6f}\n", *ready, *dead,
           monotonic() - begin, user - user_before, system_ - system_before);
}

/* Runs one command. Returns false to end. */
static bool run_command(struct generator *generator, const char *line)
{
    if (strcmp(line, "open") == 0)
        open_all(generator);
    else if (strcmp(line, "report") == 0)
        report(generator);
    else if (strcmp(line, "start") == 0 || strcmp(line, "mark") == 0) {
        line[0] == 's' ? start(generator) : mark(generator);
        printf("{}\n");
    } else
        return false;
    fflush(stdout);
    return true;
}

static void read_tokens(struct generator *generator, const char *path)
{
    char user[256], token[3072];
    FILE *file = fopen(path, "r");
    if (!file)
        fail("open the file of tokens");
    for (size_t i = 0; i < generator->count; i++) {
        if (fscanf(file, "%255s %3071s", user, token) != 2) {
            fprintf(stderr, "load: cannot read all tokens: %s has only %zu\n", path, i);
            exit(1);
        }
        generator->connections[i].user = strdup(user);
        generator->connections[i].token = strdup(token);
    }
    fclose(file);
}

static void map_progress(struct generator *generator, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        fail("map the progress file");
    generator->progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (generator->progress == MAP_FAILED)
        fail("map the progress file");
    close(fd);
}

static void read_ports(struct target *target, const char *list)
{
    char *rest = NULL;
    for (const char *at = list; *at && target->port_count < PORTS; at = *rest ? rest + 1 : rest)
        target->ports[target->port_count++] = (int)strtol(at, &rest, 10);
}

static void configure(struct generator *generator, int argc, char **argv)
{
    const char *tokens = NULL, *progress = NULL;
    generator->in_flight_limit = 64;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--port") == 0)
            read_ports(&generator->target, value);
        else if (strcmp(name, "--collections") == 0)
            generator->target.collections = strtoul(value, NULL, 10);
        else if (strcmp(name, "--connections") == 0)
            generator->count = strtoul(value, NULL, 10);
        else if (strcmp(name, "--in-flight") == 0)
            generator->in_flight_limit = strtoul(value, NULL, 10);
        else if (strcmp(name, "--path") == 0)
            generator->target.path = value;
        else if (strcmp(name, "--dialect") == 0)
            generator->target.dialect = dialect_named(value);
        else if (strcmp(name, "--tokens") == 0)
            tokens = value;
        else if (strcmp(name, "--progress") == 0)
            progress = value;
    }
    if (!generator->target.dialect || !generator->target.path || !generator->target.port_count || !generator->count || !tokens || !progress) {
        fprintf(stderr, "load: cannot start: an option is missing or wrong; main.c lists all options\n");
        exit(2);
    }
    generator->connections = calloc(generator->count, sizeof *generator->connections);
    if (!generator->connections)
        fail("allocate memory");
    generator->in_state[UNUSED] = generator->count;
    read_tokens(generator, tokens);
    map_progress(generator, progress);
}

int main(int argc, char **argv)
{
    static struct generator generator;
    struct epoll_event commands = {.events = EPOLLIN, .data.ptr = NULL};
    char line[256];
    configure(&generator, argc, argv);
    generator.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (generator.epoll < 0 || epoll_ctl(generator.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &commands) < 0)
        fail("create epoll");
    setvbuf(stdin, NULL, _IONBF, 0); /* epoll does not see a command that stdio has buffered */
    start(&generator);
    for (;;) {
        if (!poll_once(&generator, -1))
            continue;
        if (!fgets(line, sizeof line, stdin))
            break;
        line[strcspn(line, "\r\n")] = '\0';
        if (!run_command(&generator, line))
            break;
    }
    for (size_t i = 0; i < generator.count; i++)
        connection_end(&generator.connections[i]);
    return 0;
}
