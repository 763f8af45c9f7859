/* The client of every measurement: plain sockets, so that whatever is at the other end is measured with the same yardstick.
 *
 *     client [options] MODE ADDRESS PORT        MODE is one of
 *       up         send as much as goes; what the other end acknowledged counts
 *       down       receive as much as comes
 *       many-up    the same over -n connections at once, with the share of each
 *       many-down
 *       ping       send one octet, wait for it to come back, and again
 *       connect    connect, send 100 octets, wait for them to come back, close, and again (-n at a time)
 *       idle       open -n connections, or as many as go in the time; they stay until the end
 *     -t SECONDS   length of the measured window       -w SECONDS   warm-up before it
 *     -c NAME      congestion control                  -n COUNT     connections at a time
 *     -l COUNT     connections in all (connect), so that the ephemeral ports suffice: the window then ends early
 *
 * Prints "begin" and "end" around the window, for who watches the other end, then one line of JSON. Anything that is not as it should be
 * (refused, reset, nothing for 2 s) is one line on standard error and exit status 1: there is no figure for half a run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

struct options options = {.seconds = 3, .warmup = 0.5, .count = 1};

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
            options.count = atol(optarg);
            break;
        case 'l':
            options.limit = atol(optarg);
            break;
        default:
            exit(2);
        }
    }
    if (count - optind != 3)
        fail("usage: client [options] MODE ADDRESS PORT");
    options.peer.sin_family = AF_INET;
    options.peer.sin_port = htons((uint16_t)atoi(arguments[optind + 2]));
    if (!inet_aton(arguments[optind + 1], &options.peer.sin_addr))
        fail("not an IPv4 address: %s", arguments[optind + 1]);
    if (options.count < 1 || options.count > CONNECTIONS_MAX)
        fail("-n is 1 to %d", CONNECTIONS_MAX);
}

int main(int count, char **arguments)
{
    signal(SIGPIPE, SIG_IGN);
    parse_arguments(count, arguments);
    const char *mode = arguments[optind];
    if (strcmp(mode, "up") == 0 || strcmp(mode, "down") == 0)
        measure_bulk(mode[0] == 'u');
    else if (strcmp(mode, "many-up") == 0 || strcmp(mode, "many-down") == 0)
        measure_many(strcmp(mode, "many-up") == 0);
    else if (strcmp(mode, "ping") == 0)
        measure_ping();
    else if (strcmp(mode, "connect") == 0)
        measure_connect();
    else if (strcmp(mode, "idle") == 0)
        measure_idle();
    else
        fail("no such mode: %s", mode);
    return 0;
}
