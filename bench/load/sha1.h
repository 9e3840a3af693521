/* What the handshake of RFC 6455 asks of a server. */
#ifndef BENCH_SHA1_H
#define BENCH_SHA1_H

#include <stddef.h>

/* Base64 of the SHA-1 of a text of at most 119 bytes, 28 characters and a NUL. */
void sha1_base64(const char *text, size_t length, char out[29]);

#endif
