/* The hash of the server handshake of RFC 6455. */
#ifndef BENCH_SHA1_H
#define BENCH_SHA1_H

#include <stddef.h>

/* Writes the base64 of the SHA-1 of a text of at most 119 bytes: 28 characters and a NUL. */
void sha1_base64(const char *text, size_t length, char out[29]);

#endif
