/* Round trips of one octet. Every one of them is reported, as a value of four digits with how often it was seen. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client.h"

enum { SHORTEST_NS = 2000 }; /* a round trip under 2 us is none */

static int compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* Rounds to four digits. */
static uint32_t rounded(double ns)
{
    uint32_t unit = 1;
    while (ns / unit >= 10000)
        unit *= 10;
    return (uint32_t)(ns / unit + 0.5) * unit;
}

static void report_latencies(uint32_t *samples, size_t count)
{
    qsort(samples, count, sizeof *samples, compare);
    begin_report();
    printf(", \"round_trips\": %zu, \"latencies_ns\": [", count);
    for (size_t i = 0, next; i < count; i = next) {
        for (next = i; next < count && samples[next] == samples[i]; next++)
            ;
        printf("%s[%u, %zu]", i ? ", " : "", samples[i], next - i);
    }
    printf("]");
    end_report();
}

void measure_ping(void)
{
    size_t capacity = (size_t)(options.seconds * 1e9 / SHORTEST_NS) + 1;
    uint32_t *samples = calloc(capacity, sizeof *samples);
    if (!samples)
        fail("no memory for the samples");
    size_t count = 0;
    int fd = connected_socket();
    double now;
    start_warmup();
    do {
        double sent = seconds_now();
        ssize_t moved = write(fd, "x", 1);
        if (moved == 1)
            moved = read(fd, buffer, 1);
        if (moved != 1)
            fail("ping: %s", reason(moved));
        now = seconds_now();
        if (is_open() && count < capacity)
            samples[count++] = rounded((now - sent) * 1e9);
    } while (!advance_window(now));
    report_latencies(samples, count);
}
