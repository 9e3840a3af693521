// Marks the begin and the end of a measured loop for callgrind. Outside valgrind both calls do nothing.
#include <valgrind/callgrind.h>

void loop_begin(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void loop_end(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
