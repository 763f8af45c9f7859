/* What the modes of the client share: its options, its sockets, and the window in which it measures. */
#pragma once

#include <netinet/in.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { CHUNK = 256 * 1024, REQUEST = 100, STALL_S = 2, CONNECTIONS_MAX = 100000 };

struct options {
    struct sockaddr_in peer;
    double seconds;
    double warmup;
    const char *congestion; /* NULL: the system's */
    long count;             /* connections at a time */
    long limit;             /* connections in all; 0: no limit */
};

extern struct options options;
extern char buffer[CHUNK]; /* what is sent, and where to receive what nobody looks at */

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The reason why a read or write that returned `result` did not go as it should. */
const char *reason(ssize_t result);

double seconds_now(void);

/* A socket with the congestion control that was chosen. A blocking one fails after STALL_S in which nothing moved. */
int new_socket(int flags);
int connected_socket(void);
struct tcp_info tcp_info(int fd);

/* The measured window. Opening it prints "begin" and closing it "end", for who watches the other end. */
void start_warmup(void);
bool is_open(void);
void open_window(void);
void close_window(void);

/* To be called when something was done: opens the window after the warm-up, and closes it in its time. Says whether it is closed now. */
bool advance_window(double now);

/* Prints the record: the figures that every mode has, and those of the format. */
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same in parts, for records that are long. */
void begin_report(void);
void end_report(void);

void measure_bulk(bool is_up);
void measure_ping(void);
void measure_connect(void);
void measure_many(bool is_up);
void measure_idle(void);
