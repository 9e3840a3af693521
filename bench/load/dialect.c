#include "dialect.h"

#include <stdio.h>
#include <string.h>

#define OWN_CHANNELS 2 /* the user's and system, in any case */

static bool holds(const char *text, size_t size, const char *part)
{
    return memmem(text, size, part, strlen(part)) != NULL;
}

static size_t say(char *out, size_t room, const char *format, const char *token)
{
    int length = snprintf(out, room, format, token);
    return length > 0 && (size_t)length < room ? (size_t)length : 0;
}

static size_t eventbus_first(const struct greeting *greeting, char *out, size_t room, const char *token)
{
    size_t size = say(out, room, "{\"do\":\"auth\",\"token\":\"%s\",\"topics\":[", token);
    for (size_t i = 0; i < greeting->collections && size < room; i++)
        size += (size_t)snprintf(out + size, room - size, "%s\"collection:c%zu-%zu:*\"", i ? "," : "", greeting->number, i);
    if (size + 3 > room)
        return 0;
    memcpy(out + size, "]}", 3);
    return size + 2;
}

/* Ready when the gateway has said hello and that the replay of all channels of a new session is over. */
static size_t eventbus_text(struct greeting *greeting, const char *text, size_t size, char *out, size_t room, const char *token)
{
    (void)out, (void)room, (void)token;
    if (holds(text, size, "\"type\":\"bus.hello\""))
        greeting->hello = true;
    if (holds(text, size, "\"type\":\"bus.position\""))
        greeting->positions++;
    greeting->ready = greeting->hello && greeting->positions >= OWN_CHANNELS + greeting->collections;
    return 0;
}

static size_t nothing_first(const struct greeting *greeting, char *out, size_t room, const char *token)
{
    (void)greeting, (void)out, (void)room, (void)token;
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
