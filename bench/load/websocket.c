#include "websocket.h"

#include <string.h>

static uint64_t big_endian(const unsigned char *bytes, size_t count)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++)
        value = value << 8 | bytes[i];
    return value;
}

static size_t header_size(unsigned char second)
{
    unsigned length = second & 0x7f;
    return length == 127 ? 10 : length == 126 ? 4 : 2;
}

size_t ws_frame_size(const char *data, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)data;
    if (size < 2 || size < header_size(bytes[1]))
        return 0;
    size_t header = header_size(bytes[1]);
    return header + (header == 2 ? (size_t)(bytes[1] & 0x7f) : (size_t)big_endian(bytes + 2, header - 2));
}

ssize_t ws_parse(const char *data, size_t size, struct frame *frame)
{
    const unsigned char *bytes = (const unsigned char *)data;
    if (size < 2)
        return 0;
    if (bytes[0] & 0x70 || bytes[1] & 0x80)
        return -1;
    size_t whole = ws_frame_size(data, size);
    if (whole == 0 || size < whole)
        return 0;
    size_t header = header_size(bytes[1]);
    frame->opcode = bytes[0] & 0x0f;
    frame->final = bytes[0] & 0x80;
    frame->payload = data + header;
    frame->length = whole - header;
    return (ssize_t)whole;
}

size_t ws_build(char *out, unsigned opcode, const void *payload, size_t length, bool client)
{
    unsigned char *bytes = (unsigned char *)out;
    unsigned char mask = client ? 0x80 : 0;
    size_t size = 2;
    bytes[0] = (unsigned char)(0x80 | opcode);
    if (length < 126) {
        bytes[1] = (unsigned char)(mask | length);
    } else {
        size_t extra = length < 65536 ? 2 : 8;
        bytes[1] = mask | (extra == 2 ? 126 : 127);
        for (size_t i = 0; i < extra; i++)
            bytes[2 + i] = (unsigned char)(length >> 8 * (extra - 1 - i));
        size += extra;
    }
    if (client) {
        memset(out + size, 0, 4);
        size += 4;
    }
    memcpy(out + size, payload, length);
    return size + length;
}
