#include "dialect.h"

#include <stdio.h>
#include <string.h>

#define OWN_CHANNELS 2 /* the user's channel and system */

static bool contains(const char *text, size_t size, const char *part)
{
    return memmem(text, size, part, strlen(part)) != NULL;
}

static size_t format_message(char *out, size_t room, const char *format, const char *token)
{
    int length = snprintf(out, room, format, token);
    return length > 0 && (size_t)length < room ? (size_t)length : 0;
}

static size_t eventbus_first_message(const struct setup *setup, char *out, size_t room, const char *token)
{
    size_t size = format_message(out, room, "{\"do\":\"auth\",\"token\":\"%s\",\"topics\":[", token);
    for (size_t i = 0; i < setup->collections && size < room; i++)
        size += (size_t)snprintf(out + size, room - size, "%s\"collection:c%zu-%zu:*\"", i ? "," : "", setup->number, i);
    if (size + 3 > room)
        return 0;
    memcpy(out + size, "]}", 3);
    return size + 2;
}

/* The connection is ready after bus.hello and the end of the replay of all channels. */
static size_t eventbus_on_text(struct setup *setup, const char *text, size_t size, char *out, size_t room, const char *token)
{
    (void)out, (void)room, (void)token;
    if (contains(text, size, "\"type\":\"bus.hello\""))
        setup->hello = true;
    if (contains(text, size, "\"type\":\"bus.position\""))
        setup->positions++;
    setup->ready = setup->hello && setup->positions >= OWN_CHANNELS + setup->collections;
    return 0;
}

static size_t no_first_message(const struct setup *setup, char *out, size_t room, const char *token)
{
    (void)setup, (void)out, (void)room, (void)token;
    return 0;
}

/* The plain servers send any text when the connection is registered. */
static size_t plain_on_text(struct setup *setup, const char *text, size_t size, char *out, size_t room, const char *token)
{
    (void)text, (void)size, (void)out, (void)room, (void)token;
    setup->ready = true;
    return 0;
}

/* Engine.IO 4 (`0` open, `2` ping, `3` pong) that carries Socket.IO 5 (`40` connect). */
static size_t socketio_on_text(struct setup *setup, const char *text, size_t size, char *out, size_t room, const char *token)
{
    if (size >= 1 && text[0] == '0')
        return format_message(out, room, "40{\"token\":\"%s\"}", token);
    if (size == 1 && text[0] == '2')
        return format_message(out, room, "3%s", "");
    if (size >= 2 && memcmp(text, "40", 2) == 0)
        setup->ready = true;
    return 0;
}

static const struct dialect dialects[] = {
    {"eventbus", "eventbus.v1", NULL, eventbus_first_message, eventbus_on_text},
    {"plain", NULL, "%s?token=%s", no_first_message, plain_on_text},
    {"socketio", NULL, NULL, no_first_message, socketio_on_text},
};

const struct dialect *dialect_named(const char *name)
{
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
        if (strcmp(dialects[i].name, name) == 0)
            return &dialects[i];
    return NULL;
}
