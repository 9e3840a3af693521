#include "histogram.h"

#include <stddef.h>
#include <string.h>

/* Each value below 256 has a bucket. Above, each power of two has 128 buckets. */
static size_t bucket_of(uint64_t value)
{
    if (value < 2u << HISTOGRAM_BITS)
        return (size_t)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_BITS;
    return ((size_t)shift << HISTOGRAM_BITS) + (size_t)(value >> shift);
}

static uint64_t highest_of(size_t bucket)
{
    if (bucket < 2u << HISTOGRAM_BITS)
        return bucket;
    unsigned shift = (unsigned)(bucket >> HISTOGRAM_BITS) - 1;
    uint64_t mantissa = bucket - ((size_t)shift << HISTOGRAM_BITS);
    return ((mantissa + 1) << shift) - 1;
}

void histogram_clear(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->count++;
    histogram->buckets[bucket_of(value)]++;
    if (value > histogram->largest)
        histogram->largest = value;
}

uint64_t histogram_quantile(const struct histogram *histogram, double quantile)
{
    uint64_t rank = (uint64_t)(quantile * (double)histogram->count + 0.5), seen = 0;
    for (size_t bucket = 0; bucket < HISTOGRAM_SIZE && histogram->count; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= rank && seen > 0) {
            uint64_t value = highest_of(bucket);
            return value < histogram->largest ? value : histogram->largest;
        }
    }
    return histogram->largest;
}
