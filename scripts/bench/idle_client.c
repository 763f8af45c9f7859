/* The other end of scripts/bench/idle.py: holds as many idle connections as it is told to, from several source addresses.
 *
 *     idle_client ADDRESS PORT SOURCE...
 *
 * Reads orders from standard input, a line each, and answers each with a line:
 *     open COUNT    open so many more, from the source addresses by turns                  -> open TOTAL
 *     check         see whether all are there: neither closed, nor reset, nor written to   -> open TOTAL
 *     close COUNT   close the newest                                                       -> open TOTAL
 * Anything that is not as it should be is one line on standard error and exit status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_ONCE = 64, STALL_MS = 10000, CONNECTIONS_MAX = 1000000 };

static struct sockaddr_in peer;
static struct sockaddr_in *sources;
static int source_count;
static int *sockets; /* of all connections */
static long total;

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("idle_client: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static struct sockaddr_in parse_address(const char *text, long port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1)
        fail("not an IPv4 address: %s", text);
    return address;
}

/* Begins to connect from an address; the kernel chooses the port with the four-tuple in view, so that one address has ports enough. */
static int begin(const struct sockaddr_in *source)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    int on = 1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)source, sizeof *source) < 0)
        fail("bind: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&peer, sizeof peer) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    return fd;
}

static void finish(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    if (poll(&wait, 1, STALL_MS) != 1)
        fail("connection %ld: no answer within %d s", total, STALL_MS / 1000);
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error)
        fail("connection %ld: %s", total, strerror(error));
}

static void open_more(long count)
{
    if (count < 1 || total + count > CONNECTIONS_MAX)
        fail("cannot open %ld more", count);
    while (count > 0) {
        long batch = count < AT_ONCE ? count : AT_ONCE;
        for (long i = 0; i < batch; i++)
            sockets[total + i] = begin(&sources[(total + i) % source_count]);
        for (long i = 0; i < batch; i++)
            finish(sockets[total++]);
        count -= batch;
    }
}

static void check(void)
{
    for (long i = 0; i < total; i++) {
        char octet;
        ssize_t got = recv(sockets[i], &octet, 1, MSG_PEEK | MSG_DONTWAIT);
        if (got >= 0)
            fail("connection %ld: %s", i, got ? "the other end wrote" : "closed by the other end");
        if (errno != EAGAIN)
            fail("connection %ld: %s", i, strerror(errno));
    }
}

static void close_newest(long count)
{
    while (count-- > 0 && total > 0)
        close(sockets[--total]);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        fail("usage: idle_client ADDRESS PORT SOURCE...");
    peer = parse_address(argv[1], strtol(argv[2], NULL, 10));
    source_count = argc - 3;
    sources = calloc((size_t)source_count, sizeof *sources);
    sockets = calloc(CONNECTIONS_MAX, sizeof *sockets);
    if (!sources || !sockets)
        fail("no memory");
    for (int i = 0; i < source_count; i++)
        sources[i] = parse_address(argv[3 + i], 0);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max; /* where that is too few, idle.py starts several of us */
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        fail("the limit of open files: %s", strerror(errno));
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        long count = 0;
        if (sscanf(line, "open %ld", &count) == 1)
            open_more(count);
        else if (sscanf(line, "close %ld", &count) == 1)
            close_newest(count);
        else if (strcmp(line, "check\n") == 0)
            check();
        else
            fail("not an order: %s", line);
        if (printf("open %ld\n", total) < 0 || fflush(stdout) != 0)
            return 1; /* nobody listens */
    }
    return 0;
}
