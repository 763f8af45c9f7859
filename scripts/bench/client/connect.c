/* Connections: connect, send 100 octets, wait for them to come back, close, and again; one at a time or several. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"

enum { READY_MAX = 1024 };

static long total;
static long counted; /* in the window */

/* Counts a connection that is done; returns whether there are to be more. */
static bool count_connection(void)
{
    total++;
    counted += is_open();
    if (advance_window(seconds_now()))
        return false;
    if (is_open() && options.limit && total >= options.limit) {
        close_window();
        return false;
    }
    return true;
}

static void measure_serially(void)
{
    do {
        int fd = new_socket(0);
        if (connect(fd, (struct sockaddr *)&options.peer, sizeof options.peer) < 0)
            fail("connect: %s", errno == EINPROGRESS ? "no answer within 2 s" : strerror(errno));
        ssize_t moved = write(fd, buffer, REQUEST);
        if (moved != REQUEST)
            fail("send: %s", reason(moved));
        for (ssize_t got = 0; got < REQUEST; got += moved) {
            moved = read(fd, buffer, (size_t)(REQUEST - got));
            if (moved <= 0)
                fail("receive: %s", reason(moved));
        }
        close(fd);
    } while (count_connection());
}

/* One of the connections that are under way at a time. */
struct slot {
    int fd;
    bool is_sent;
    ssize_t got;
};

static void start_connection(int epoll, struct slot *slot)
{
    slot->fd = new_socket(SOCK_NONBLOCK);
    slot->is_sent = false;
    slot->got = 0;
    if (connect(slot->fd, (struct sockaddr *)&options.peer, sizeof options.peer) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = slot};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, slot->fd, &event) < 0)
        fail("epoll: %s", strerror(errno));
}

/* Goes on with a connection that is ready; returns whether it is done. */
static bool continue_connection(int epoll, struct slot *slot)
{
    if (!slot->is_sent) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error)
            fail("connect: %s", strerror(error));
        ssize_t moved = write(slot->fd, buffer, REQUEST);
        if (moved != REQUEST)
            fail("send: %s", reason(moved));
        slot->is_sent = true;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = slot};
        epoll_ctl(epoll, EPOLL_CTL_MOD, slot->fd, &event);
        return false;
    }
    ssize_t moved = read(slot->fd, buffer, (size_t)(REQUEST - slot->got));
    if (moved <= 0)
        fail("receive: %s", reason(moved));
    slot->got += moved;
    if (slot->got < REQUEST)
        return false;
    close(slot->fd); /* which takes it out of the epoll set */
    return true;
}

static void measure_in_parallel(void)
{
    static struct epoll_event events[READY_MAX];
    struct slot *slots = calloc((size_t)options.count, sizeof *slots);
    int epoll = epoll_create1(0);
    if (!slots || epoll < 0)
        fail("no memory");
    for (long i = 0; i < options.count; i++)
        start_connection(epoll, &slots[i]);
    for (;;) {
        int ready = epoll_wait(epoll, events, READY_MAX, STALL_S * 1000);
        if (ready <= 0)
            fail("connect: %s", ready ? strerror(errno) : "nothing moved for 2 s");
        for (int i = 0; i < ready; i++) {
            struct slot *slot = events[i].data.ptr;
            if (!continue_connection(epoll, slot))
                continue;
            if (!count_connection())
                return;
            start_connection(epoll, slot);
        }
    }
}

void measure_connect(void)
{
    start_warmup();
    if (options.count == 1)
        measure_serially();
    else
        measure_in_parallel();
    report("\"connections\": %ld", counted);
}
