/* Sockets of the client, and the window in which it measures. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

char buffer[CHUNK];

static struct {
    double started; /* when the warm-up began */
    double opened;  /* 0: not yet */
    double closed;
    struct rusage before;
    struct rusage after;
} window;

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("client: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

const char *reason(ssize_t result)
{
    if (result >= 0)
        return "closed by the other end";
    return errno == EAGAIN ? "nothing moved for 2 s" : strerror(errno);
}

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int new_socket(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    const char *name = options.congestion;
    if (name && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) < 0)
        fail("congestion control %s: %s", name, strerror(errno));
    if (flags & SOCK_NONBLOCK)
        return fd;
    struct timeval stall = {.tv_sec = STALL_S};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &stall, sizeof stall);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof stall);
    return fd;
}

int connected_socket(void)
{
    int fd = new_socket(0);
    if (connect(fd, (struct sockaddr *)&options.peer, sizeof options.peer) < 0)
        fail("connect: %s", errno == EINPROGRESS ? "no answer within 2 s" : strerror(errno));
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

struct tcp_info tcp_info(int fd)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
        fail("TCP_INFO: %s", strerror(errno));
    return info;
}

static void announce(const char *word)
{
    if (puts(word) < 0 || fflush(stdout) != 0)
        exit(1); /* nobody listens */
}

void start_warmup(void)
{
    window.started = seconds_now();
}

bool is_open(void)
{
    return window.opened != 0;
}

void open_window(void)
{
    announce("begin");
    getrusage(RUSAGE_SELF, &window.before);
    window.opened = seconds_now();
}

void close_window(void)
{
    window.closed = seconds_now();
    getrusage(RUSAGE_SELF, &window.after);
    announce("end");
}

bool advance_window(double now)
{
    if (!is_open()) {
        if (now - window.started >= options.warmup)
            open_window();
        return false;
    }
    if (now - window.opened < options.seconds)
        return false;
    close_window();
    return true;
}

static double elapsed(const struct timeval *from, const struct timeval *to)
{
    return (double)(to->tv_sec - from->tv_sec) + 1e-6 * (double)(to->tv_usec - from->tv_usec);
}

void begin_report(void)
{
    printf("{\"seconds\": %.6f, \"client_user_s\": %.6f, \"client_system_s\": %.6f", window.closed - window.opened,
           elapsed(&window.before.ru_utime, &window.after.ru_utime), elapsed(&window.before.ru_stime, &window.after.ru_stime));
}

void end_report(void)
{
    if (puts("}") < 0 || fflush(stdout) != 0)
        exit(1);
}

void report(const char *format, ...)
{
    begin_report();
    fputs(", ", stdout);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    end_report();
}
