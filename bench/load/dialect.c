#include "dialect.h"

#include <stdio.h>
#include <string.h>

enum { HELLO = 1, POSITION_USER = 2, POSITION_SYSTEM = 4, ALL = 7 };

static bool holds(const char *text, size_t size, const char *part)
{
    return memmem(text, size, part, strlen(part)) != NULL;
}

static size_t say(char *out, size_t room, const char *format, const char *token)
{
    int length = snprintf(out, room, format, token);
    return length > 0 && (size_t)length < room ? (size_t)length : 0;
}

static size_t eventbus_first(char *out, size_t room, const char *token)
{
    return say(out, room, "{\"do\":\"auth\",\"token\":\"%s\"}", token);
}

/* Ready when the gateway has said hello and that the replay of both channels of a new session is over. */
static size_t eventbus_text(struct greeting *greeting, const char *text, size_t size, char *out, size_t room, const char *token)
{
    (void)out, (void)room, (void)token;
    if (holds(text, size, "\"type\":\"bus.hello\""))
        greeting->seen |= HELLO;
    if (holds(text, size, "\"type\":\"bus.position\""))
        greeting->seen |= holds(text, size, "\"channel\":\"system\"") ? POSITION_SYSTEM : POSITION_USER;
    greeting->ready = greeting->seen == ALL;
    return 0;
}

static size_t nothing_first(char *out, size_t room, const char *token)
{
    (void)out, (void)room, (void)token;
    return 0;
}

/* The plain servers greet with any text once the connection is registered. */
static size_t plain_text(struct greeting *greeting, const char *text, size_t size, char *out, size_t room, const char *token)
{
    (void)text, (void)size, (void)out, (void)room, (void)token;
    greeting->ready = true;
    return 0;
}

/* Engine.IO 4 (`0` open, `2` ping, `3` pong) with Socket.IO 5 in it (`40` connect). */
static size_t socketio_text(struct greeting *greeting, const char *text, size_t size, char *out, size_t room, const char *token)
{
    if (size >= 1 && text[0] == '0')
        return say(out, room, "40{\"token\":\"%s\"}", token);
    if (size == 1 && text[0] == '2')
        return say(out, room, "3%s", "");
    if (size >= 2 && memcmp(text, "40", 2) == 0)
        greeting->ready = true;
    return 0;
}

static const struct dialect dialects[] = {
    {"eventbus", "eventbus.v1", NULL, eventbus_first, eventbus_text},
    {"plain", NULL, "%s?token=%s", nothing_first, plain_text},
    {"socketio", NULL, NULL, nothing_first, socketio_text},
};

const struct dialect *dialect_named(const char *name)
{
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
        if (strcmp(dialects[i].name, name) == 0)
            return &dialects[i];
    return NULL;
}
