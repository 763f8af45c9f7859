/* The client of every measurement: plain sockets, so that whatever is at the other end is measured with the same yardstick.
 *
 *     client [options] MODE ADDRESS PORT        MODE is one of
 *       up       send as much as goes; what the other end acknowledged counts
 *       down     receive as much as comes
 *       ping     send one octet, wait for it to come back, and again
 *       connect  connect, send 100 octets, wait for them to come back, close, and again (-n at a time)
 *     -t SECONDS   length of the measured window       -w SECONDS   warm-up before it
 *     -c NAME      congestion control                  -n COUNT     connections at a time (connect)
 *     -l COUNT     connections in all (connect), so that the ephemeral ports suffice: the window then ends early
 *
 * Prints "begin" and "end" around the window, for who watches the other end's CPU time, then one line of JSON. Anything that is not as
 * it should be (refused, reset, nothing for 2 s) is one line on standard error and exit status 1: there is no figure for half a run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 * 1024, REQUEST = 100, STALL_S = 2, PARALLEL_MAX = 1024 };

static struct {
    struct sockaddr_in peer;
    double seconds;
    double warmup;
    const char *congestion; /* NULL: the system's */
    long parallel;
    long limit; /* 0: none */
} options = {.seconds = 3, .warmup = 0.5, .parallel = 1};

static char buffer[CHUNK];

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("client: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* The reason why a read or write that returned `result` did not go as it should. */
static const char *reason(ssize_t result)
{
    if (result >= 0)
        return "closed by the other end";
    return errno == EAGAIN ? "nothing moved for 2 s" : strerror(errno);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The measured window: from the end of the warm-up until its time is up. */
static struct window {
    double started; /* when the warm-up began */
    double opened;  /* 0: not yet */
    double closed;
    struct rusage before;
    struct rusage after;
} window;

static void announce(const char *word)
{
    if (puts(word) < 0 || fflush(stdout) != 0)
        exit(1); /* nobody listens */
}

static void open_window(double now)
{
    announce("begin");
    getrusage(RUSAGE_SELF, &window.before);
    window.opened = now;
}

static void close_window(double now)
{
    window.closed = now;
    getrusage(RUSAGE_SELF, &window.after);
    announce("end");
}

static double elapsed(const struct timeval *from, const struct timeval *to)
{
    return (double)(to->tv_sec - from->tv_sec) + 1e-6 * (double)(to->tv_usec - from->tv_usec);
}

/* Prints the figures that every mode has, and then those of the format. */
static void report(const char *format, ...)
{
    printf("{\"seconds\": %.6f, \"client_user_s\": %.6f, \"client_system_s\": %.6f, ", window.closed - window.opened,
           elapsed(&window.before.ru_utime, &window.after.ru_utime), elapsed(&window.before.ru_stime, &window.after.ru_stime));
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    puts("}");
}

static int new_socket(int flags)
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

static int connected_socket(void)
{
    int fd = new_socket(0);
    if (connect(fd, (struct sockaddr *)&options.peer, sizeof options.peer) < 0)
        fail("connect: %s", errno == EINPROGRESS ? "no answer within 2 s" : strerror(errno));
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static struct tcp_info tcp_info(int fd)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
        fail("TCP_INFO: %s", strerror(errno));
    return info;
}

/* up and down */

static void measure_bulk(bool is_up)
{
    int fd = connected_socket();
    uint64_t octets = 0;
    uint64_t before = 0;
    window.started = seconds_now();
    for (;;) {
        ssize_t moved = is_up ? write(fd, buffer, sizeof buffer) : read(fd, buffer, sizeof buffer);
        if (moved <= 0)
            fail("%s: %s", is_up ? "send" : "receive", reason(moved));
        octets += (uint64_t)moved;
        double now = seconds_now();
        if (!window.opened && now - window.started >= options.warmup) {
            open_window(now);
            before = is_up ? tcp_info(fd).tcpi_bytes_acked : octets;
        } else if (window.opened && now - window.opened >= options.seconds) {
            close_window(now);
            break;
        }
    }
    struct tcp_info info = tcp_info(fd);
    uint64_t after = is_up ? info.tcpi_bytes_acked : octets;
    report("\"octets\": %llu, \"mss\": %u, \"rtt_us\": %u, \"cwnd\": %u, \"retransmits\": %u", (unsigned long long)(after - before),
           is_up ? info.tcpi_snd_mss : info.tcpi_rcv_mss, info.tcpi_rtt, info.tcpi_snd_cwnd, info.tcpi_total_retrans);
}

/* ping */

static int compare_floats(const void *left, const void *right)
{
    float a = *(const float *)left;
    float b = *(const float *)right;
    return (a > b) - (a < b);
}

static void measure_ping(void)
{
    size_t capacity = (size_t)(options.seconds * 500000) + 1; /* a round trip under 2 us is none */
    float *samples = calloc(capacity, sizeof *samples);
    if (!samples)
        fail("no memory for the samples");
    size_t count = 0;
    int fd = connected_socket();
    window.started = seconds_now();
    for (;;) {
        double sent = seconds_now();
        ssize_t moved = write(fd, "x", 1);
        if (moved == 1)
            moved = read(fd, buffer, 1);
        if (moved != 1)
            fail("ping: %s", reason(moved));
        double now = seconds_now();
        if (window.opened && count < capacity)
            samples[count++] = (float)((now - sent) * 1e6);
        if (!window.opened && now - window.started >= options.warmup) {
            open_window(now);
        } else if (window.opened && now - window.opened >= options.seconds) {
            close_window(now);
            break;
        }
    }
    qsort(samples, count, sizeof *samples, compare_floats);
    report("\"round_trips\": %zu, \"min_us\": %.2f, \"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f",
           count, samples[0], samples[count / 2], samples[count * 9 / 10], samples[count * 99 / 100], samples[count * 999 / 1000],
           samples[count - 1]);
}

/* connect */

/* Counts a connection that is done; returns whether there are to be more. */
static bool count_connection(long *total, long *counted)
{
    double now = seconds_now();
    ++*total;
    if (window.opened)
        ++*counted;
    else if (now - window.started >= options.warmup)
        open_window(now);
    if (window.opened && (now - window.opened >= options.seconds || (options.limit && *total >= options.limit))) {
        close_window(now);
        return false;
    }
    return true;
}

static void measure_connect_serially(void)
{
    long total = 0;
    long counted = 0;
    window.started = seconds_now();
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
    } while (count_connection(&total, &counted));
    report("\"connections\": %ld", counted);
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

static void measure_connect_in_parallel(void)
{
    static struct slot slots[PARALLEL_MAX];
    struct epoll_event events[PARALLEL_MAX];
    int epoll = epoll_create1(0);
    long total = 0;
    long counted = 0;
    window.started = seconds_now();
    for (long i = 0; i < options.parallel; i++)
        start_connection(epoll, &slots[i]);
    for (;;) {
        int ready = epoll_wait(epoll, events, (int)options.parallel, STALL_S * 1000);
        if (ready <= 0)
            fail("connect: %s", ready ? strerror(errno) : "nothing moved for 2 s");
        for (int i = 0; i < ready; i++) {
            struct slot *slot = events[i].data.ptr;
            if (!continue_connection(epoll, slot))
                continue;
            if (!count_connection(&total, &counted)) {
                report("\"connections\": %ld", counted);
                return;
            }
            start_connection(epoll, slot);
        }
    }
}

static void parse_arguments(int count, char **arguments)
{
    for (int option; (option = getopt(count, arguments, "t:w:c:n:l:")) != -1;) {
        switch (option) {
        case 't':
            options.seconds = atof(optarg);
            break;
        case 'w':
            options.warmup = atof(optarg);
            break;
        case 'c':
            options.congestion = optarg;
            break;
        case 'n':
            options.parallel = atol(optarg);
            break;
        case 'l':
            options.limit = atol(optarg);
            break;
        default:
            exit(2);
        }
    }
    if (count - optind != 3)
        fail("usage: client [options] up|down|ping|connect ADDRESS PORT");
    options.peer.sin_family = AF_INET;
    options.peer.sin_port = htons((uint16_t)atoi(arguments[optind + 2]));
    if (!inet_aton(arguments[optind + 1], &options.peer.sin_addr))
        fail("not an IPv4 address: %s", arguments[optind + 1]);
    if (options.parallel < 1 || options.parallel > PARALLEL_MAX)
        fail("-n is 1 to %d", PARALLEL_MAX);
}

int main(int count, char **arguments)
{
    signal(SIGPIPE, SIG_IGN);
    parse_arguments(count, arguments);
    const char *mode = arguments[optind];
    if (strcmp(mode, "up") == 0 || strcmp(mode, "down") == 0)
        measure_bulk(mode[0] == 'u');
    else if (strcmp(mode, "ping") == 0)
        measure_ping();
    else if (strcmp(mode, "connect") == 0 && options.parallel == 1)
        measure_connect_serially();
    else if (strcmp(mode, "connect") == 0)
        measure_connect_in_parallel();
    else
        fail("no such mode: %s", mode);
    return 0;
}
