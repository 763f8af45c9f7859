/* Idle connections: opened in a row, and left alone. Who looks at the other end's memory finds in it what so many of them take. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client.h"

enum { FIRST = 100, SETTLE_US = 300000 }; /* opened before the window: by then imports, tables and caches have their size */

void measure_idle(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files); /* where that is too few, a socket will say so */
    for (int i = 0; i < FIRST; i++)
        connected_socket();
    usleep(SETTLE_US); /* the other end accepts them */
    open_window();
    double deadline = seconds_now() + options.seconds;
    long opened = 0;
    while (opened < options.count && seconds_now() < deadline) {
        connected_socket();
        opened++;
    }
    usleep(SETTLE_US);
    close_window();
    report("\"connections\": %ld", opened);
}
