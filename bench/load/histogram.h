/* A log-linear histogram as HdrHistogram, with a relative error of at most 1/128. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 7
#define HISTOGRAM_SIZE ((64 - HISTOGRAM_BITS + 1) << HISTOGRAM_BITS)

struct histogram {
    uint64_t count;
    uint64_t largest;
    uint64_t buckets[HISTOGRAM_SIZE];
};

void histogram_clear(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t value);

/* Returns the value of a quantile (0 to 1), or 0 without values. */
uint64_t histogram_quantile(const struct histogram *histogram, double quantile);

#endif
