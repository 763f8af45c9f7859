/* Bulk transfer: over one connection, or over many at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client.h"

enum { PIECE = 64 * 1024, READY_MAX = 1024 }; /* of many connections each moves so much at a time */

static ssize_t move(int fd, bool is_up, size_t length)
{
    return is_up ? write(fd, buffer, length) : read(fd, buffer, length);
}

void measure_bulk(bool is_up)
{
    int fd = connected_socket();
    uint64_t octets = 0;
    uint64_t before = 0;
    bool is_closed;
    start_warmup();
    do {
        ssize_t moved = move(fd, is_up, sizeof buffer);
        if (moved <= 0)
            fail("%s: %s", is_up ? "send" : "receive", reason(moved));
        octets += (uint64_t)moved;
        bool was_open = is_open();
        is_closed = advance_window(seconds_now());
        if (!was_open && is_open())
            before = is_up ? tcp_info(fd).tcpi_bytes_acked : octets;
    } while (!is_closed);
    struct tcp_info info = tcp_info(fd);
    uint64_t after = is_up ? info.tcpi_bytes_acked : octets;
    report("\"octets\": %llu, \"mss\": %u, \"rtt_us\": %u, \"cwnd\": %u, \"retransmits\": %u", (unsigned long long)(after - before),
           is_up ? info.tcpi_snd_mss : info.tcpi_rcv_mss, info.tcpi_rtt, info.tcpi_snd_cwnd, info.tcpi_total_retrans);
}

/* One of many connections. */
struct flow {
    int fd;
    uint64_t octets; /* received */
    uint64_t before; /* that had moved when the window opened */
};

static uint64_t moved_so_far(const struct flow *flow, bool is_up)
{
    return is_up ? tcp_info(flow->fd).tcpi_bytes_acked : flow->octets;
}

static void report_flows(const struct flow *flows, bool is_up)
{
    uint64_t octets = 0;
    unsigned retransmits = 0;
    begin_report();
    printf(", \"shares\": [");
    for (long i = 0; i < options.count; i++) {
        uint64_t share = moved_so_far(&flows[i], is_up) - flows[i].before;
        octets += share;
        retransmits += tcp_info(flows[i].fd).tcpi_total_retrans;
        printf("%s%llu", i ? ", " : "", (unsigned long long)share);
    }
    printf("], \"octets\": %llu, \"retransmits\": %u", (unsigned long long)octets, retransmits);
    end_report();
}

void measure_many(bool is_up)
{
    static struct epoll_event events[READY_MAX];
    struct flow *flows = calloc((size_t)options.count, sizeof *flows);
    int epoll = epoll_create1(0);
    if (!flows || epoll < 0)
        fail("no memory");
    for (long i = 0; i < options.count; i++) {
        flows[i].fd = connected_socket();
        struct epoll_event event = {.events = is_up ? EPOLLOUT : EPOLLIN, .data.ptr = &flows[i]};
        if (fcntl(flows[i].fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, flows[i].fd, &event) < 0)
            fail("epoll: %s", strerror(errno));
    }
    start_warmup();
    for (;;) {
        int ready = epoll_wait(epoll, events, READY_MAX, STALL_S * 1000);
        if (ready <= 0)
            fail("many: %s", ready ? strerror(errno) : "nothing moved for 2 s");
        for (int i = 0; i < ready; i++) {
            struct flow *flow = events[i].data.ptr;
            ssize_t moved = move(flow->fd, is_up, PIECE);
            if (moved > 0)
                flow->octets += (uint64_t)moved;
            else if (moved == 0 || errno != EAGAIN)
                fail("%s: %s", is_up ? "send" : "receive", reason(moved));
        }
        bool was_open = is_open();
        if (advance_window(seconds_now()))
            break;
        if (!was_open && is_open())
            for (long i = 0; i < options.count; i++)
                flows[i].before = moved_so_far(&flows[i], is_up);
    }
    report_flows(flows, is_up);
}
