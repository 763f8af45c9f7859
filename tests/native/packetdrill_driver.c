/* Loads the packetdrill plug-in as packetdrill does and plays connections through its table of functions.
 *
 *     packetdrill_driver LIBRARY
 *
 * Says which check failed, with its line, and ends with status 1; otherwise prints "ok". Run it with the library preloaded, so that its
 * getsockopt is the C library's. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "interface.h"

#define CHECK(condition)                                                                                        \
    do {                                                                                                        \
        if (!(condition)) {                                                                                     \
            fprintf(stderr, "line %d: %s (errno %d: %s)\n", __LINE__, #condition, errno, strerror(errno));      \
            exit(1);                                                                                            \
        }                                                                                                       \
    } while (0)

#define MAX_PACKET 65536

static struct packetdrill_interface api;
static struct in_addr ours, theirs;

struct packet {
    uint32_t seq, ack;
    uint16_t window, source, target;
    uint8_t flags;
    size_t length; /* of the payload */
    char payload[MAX_PACKET];
    long long time;
};

enum { F = 1, S = 2, R = 4, P = 8, A = 16 };

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)~sum;
}

static uint32_t add(uint32_t sum, const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++)
        sum += i & 1 ? data[i] : (uint32_t)data[i] << 8;
    return sum;
}

/* Inject a segment from their port 9000 to our port. */
static void inject(uint16_t port, uint8_t flags, uint32_t seq, uint32_t ack, const char *payload, size_t length)
{
    uint8_t frame[MAX_PACKET] = {0};
    struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP};
    struct tcphdr tcp = {.doff = 5, .window = htons(32768)};
    size_t total = sizeof ip + sizeof tcp + length;
    ip.tot_len = htons((uint16_t)total);
    ip.saddr = theirs.s_addr;
    ip.daddr = ours.s_addr;
    tcp.th_sport = htons(9000);
    tcp.th_dport = htons(port);
    tcp.th_seq = htonl(seq);
    tcp.th_ack = htonl(ack);
    tcp.th_flags = flags;
    memcpy(frame, &ip, sizeof ip);
    memcpy(frame + sizeof ip, &tcp, sizeof tcp);
    memcpy(frame + sizeof ip + sizeof tcp, payload, length);
    uint16_t sum = htons(fold(add(0, frame, sizeof ip)));
    memcpy(frame + 10, &sum, 2);
    uint32_t pseudo = add(IPPROTO_TCP + (uint32_t)(total - sizeof ip), frame + 12, 8);
    sum = htons(fold(add(pseudo, frame + sizeof ip, total - sizeof ip)));
    memcpy(frame + sizeof ip + 16, &sum, 2);
    CHECK(api.netdev_send(api.userdata, frame, total) == 0);
}

/* Fetch the next packet; false where there is none. */
static bool fetch(struct packet *packet)
{
    uint8_t frame[MAX_PACKET];
    size_t size = sizeof frame;
    CHECK(api.netdev_receive(api.userdata, frame, &size, &packet->time) == 0);
    if (size == 0)
        return false;
    struct iphdr ip;
    struct tcphdr tcp;
    memcpy(&ip, frame, sizeof ip);
    CHECK(ip.version == 4 && ip.protocol == IPPROTO_TCP && ntohs(ip.tot_len) == size && ip.daddr == theirs.s_addr);
    CHECK(fold(add(0, frame, ip.ihl * 4u)) == 0);
    memcpy(&tcp, frame + ip.ihl * 4u, sizeof tcp);
    size_t header = ip.ihl * 4u + tcp.doff * 4u;
    packet->source = ntohs(tcp.th_sport);
    packet->target = ntohs(tcp.th_dport);
    packet->seq = ntohl(tcp.th_seq);
    packet->ack = ntohl(tcp.th_ack);
    packet->flags = tcp.th_flags;
    packet->window = ntohs(tcp.th_win);
    packet->length = size - header;
    memcpy(packet->payload, frame + header, packet->length);
    return true;
}

static struct packet fetch_one(uint8_t flags)
{
    struct packet packet;
    CHECK(fetch(&packet));
    if (packet.flags != flags)
        fprintf(stderr, "flags are %#x, not %#x\n", packet.flags, flags);
    CHECK(packet.flags == flags);
    return packet;
}

static long long now(void)
{
    struct timeval time;
    CHECK(api.gettimeofday(api.userdata, &time, NULL) == 0);
    return time.tv_sec * 1000000LL + time.tv_usec;
}

/* A call that blocks, from a thread of its own. */
struct blocked {
    pthread_t thread;
    volatile pid_t id;
    ssize_t (*call)(int fd, void *buffer);
    int fd;
    char buffer[100];
    ssize_t result;
    int error;
    long long ended;
};

static void *make_call(void *argument)
{
    struct blocked *blocked = argument;
    blocked->id = gettid();
    blocked->result = blocked->call(blocked->fd, blocked->buffer);
    blocked->error = errno;
    blocked->ended = now();
    return NULL;
}

/* Begin, and wait until the thread sleeps in the call. */
static void begin(struct blocked *blocked, ssize_t (*call)(int, void *), int fd)
{
    memset(blocked, 0, sizeof *blocked);
    blocked->call = call;
    blocked->fd = fd;
    CHECK(pthread_create(&blocked->thread, NULL, make_call, blocked) == 0);
    for (int tries = 0; tries < 5000; tries++) {
        char path[64], state = 0;
        usleep(1000);
        if (blocked->id == 0)
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)blocked->id);
        FILE *file = fopen(path, "r");
        CHECK(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
        fclose(file);
        if (state == 'S')
            return;
    }
    CHECK(!"the call did not block");
}

static ssize_t call_accept(int fd, void *buffer)
{
    (void)buffer;
    return api.accept(api.userdata, fd, NULL, NULL);
}

static ssize_t call_read(int fd, void *buffer)
{
    return api.read(api.userdata, fd, buffer, 100);
}

static ssize_t call_poll(int fd, void *buffer)
{
    struct pollfd asked = {.fd = fd, .events = POLLIN};
    (void)buffer;
    return api.poll(api.userdata, &asked, 1, 300);
}

static int new_socket(void)
{
    int fd = api.socket(api.userdata, AF_INET, SOCK_STREAM, IPPROTO_TCP);
    CHECK(fd >= 0);
    return fd;
}

static int listen_on(uint16_t port)
{
    int fd = new_socket(), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = ours};
    CHECK(api.setsockopt(api.userdata, fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    CHECK(api.bind(api.userdata, fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(api.listen(api.userdata, fd, 1) == 0);
    return fd;
}

/* Three segments; returns our ISN. */
static uint32_t shake_hands(uint16_t port)
{
    inject(port, S, 0, 0, "", 0);
    struct packet packet = fetch_one(S | A);
    CHECK(packet.ack == 1 && packet.source == port && packet.target == 9000);
    inject(port, A, 1, packet.seq + 1, "", 0);
    return packet.seq;
}

static void check_the_clock(void)
{
    long long before = now();
    CHECK(now() > before); /* it goes on by being looked at */
    before = now();
    CHECK(api.usleep(api.userdata, 250000) == 0);
    long long slept = now() - before;
    CHECK(slept >= 250000 && slept < 250100);
}

static void check_nothing_leaves(void)
{
    struct packet packet;
    CHECK(!fetch(&packet));
    CHECK(!fetch(&packet));
}

static void check_errors(void)
{
    char octet;
    errno = 0;
    CHECK(api.read(api.userdata, 1000, &octet, 1) == -1 && errno == EBADF);
    int fd = new_socket();
    errno = 0;
    CHECK(api.read(api.userdata, fd, &octet, 1) == -1 && errno == ENOTCONN);
    CHECK(api.write(api.userdata, fd, &octet, 1) == -1 && errno == EPIPE);
    CHECK(api.socket(api.userdata, AF_INET, SOCK_DGRAM, 0) == -1 && errno == ESOCKTNOSUPPORT);
    CHECK(api.fcntl(api.userdata, fd, F_GETFL) == O_RDWR);
    CHECK(api.fcntl(api.userdata, fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    CHECK(api.fcntl(api.userdata, fd, F_GETFL) == (O_RDWR | O_NONBLOCK));
    CHECK(close(fd) == 0); /* a real one */
}

static void check_a_served_connection(void)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int listener = listen_on(8080), waiting = -1;
    CHECK(api.fcntl(api.userdata, listener, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    CHECK(api.accept(api.userdata, listener, NULL, NULL) == -1 && errno == EAGAIN);
    uint32_t iss = shake_hands(8080);
    int fd = api.accept(api.userdata, listener, (struct sockaddr *)&address, &length);
    CHECK(fd >= 0);
    CHECK(length == sizeof address && address.sin_family == AF_INET);
    CHECK(address.sin_port == htons(9000) && address.sin_addr.s_addr == theirs.s_addr);

    inject(8080, P | A, 1, iss + 1, "hello", 5);
    struct packet packet = fetch_one(A);
    CHECK(packet.ack == 6);
    CHECK(api.ioctl(api.userdata, fd, FIONREAD, &waiting) == 0 && waiting == 5);
    char first[2], rest[10];
    struct iovec pieces[2] = {{first, sizeof first}, {rest, sizeof rest}};
    CHECK(api.readv(api.userdata, fd, pieces, 2) == 5 && memcmp(first, "he", 2) == 0 && memcmp(rest, "llo", 3) == 0);

    struct msghdr message = {.msg_iov = (struct iovec[]){{"good ", 5}, {"bye", 3}}, .msg_iovlen = 2};
    CHECK(api.sendmsg(api.userdata, fd, &message, 0) == 8);
    packet = fetch_one(P | A);
    CHECK(packet.length == 8 && memcmp(packet.payload, "good bye", 8) == 0 && packet.seq == iss + 1);

    struct tcp_info info;
    length = sizeof info;
    memset(&info, 0, sizeof info);
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0); /* the C library's name, the plug-in's function */
    CHECK(info.tcpi_state == TCP_ESTABLISHED && info.tcpi_unacked == 1 && info.tcpi_snd_mss == 536 && info.tcpi_snd_cwnd == 10);
    int pair[2], type = 0;
    CHECK(pipe(pair) == 0);
    length = sizeof type;
    CHECK(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &type, &length) == -1 && errno == ENOTSOCK); /* not ours: the kernel's */

    packet = fetch_one(P | A); /* sent again, for want of an ACK */
    CHECK(packet.seq == iss + 1 && packet.length == 8);
    inject(8080, A, 6, iss + 9, "", 0);
    CHECK(api.close(api.userdata, fd) == 0);
    fetch_one(F | A);
    inject(8080, F | A, 6, iss + 10, "", 0);
    fetch_one(A);
    CHECK(api.close(api.userdata, fd) == -1 && errno == EBADF);
    CHECK(api.close(api.userdata, listener) == 0);
}

static void check_a_connecting_socket(void)
{
    int fd = new_socket(), error = -1;
    socklen_t length = sizeof error;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9000), .sin_addr = theirs};
    CHECK(api.fcntl(api.userdata, fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    CHECK(api.connect(api.userdata, fd, (struct sockaddr *)&address, sizeof address) == -1 && errno == EINPROGRESS);
    struct packet packet = fetch_one(S);
    CHECK(api.connect(api.userdata, fd, (struct sockaddr *)&address, sizeof address) == -1 && errno == EALREADY);
    inject(packet.source, R | A, 0, packet.seq + 1, "", 0);
    CHECK(api.getsockopt(api.userdata, fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == ECONNREFUSED);
    CHECK(api.close(api.userdata, fd) == 0);
}

static void check_calls_that_block(void)
{
    struct blocked blocked;
    int listener = listen_on(8081);
    begin(&blocked, call_accept, listener);
    CHECK(api.usleep(api.userdata, 100000) == 0);
    long long before = now();
    uint32_t iss = shake_hands(8081);
    long long after = now();
    CHECK(pthread_join(blocked.thread, NULL) == 0);
    CHECK(blocked.result >= 0 && blocked.ended >= before && blocked.ended <= after);
    int fd = (int)blocked.result;

    begin(&blocked, call_read, fd);
    CHECK(api.usleep(api.userdata, 1000000) == 0);
    before = now();
    inject(8081, P | A, 1, iss + 1, "late", 4);
    after = now();
    CHECK(pthread_join(blocked.thread, NULL) == 0);
    CHECK(blocked.result == 4 && memcmp(blocked.buffer, "late", 4) == 0);
    CHECK(blocked.ended >= before && blocked.ended <= after);
    fetch_one(A);

    before = now();
    begin(&blocked, call_poll, fd); /* 300 ms, in vain */
    CHECK(api.usleep(api.userdata, 1000000) == 0);
    CHECK(pthread_join(blocked.thread, NULL) == 0);
    CHECK(blocked.result == 0 && blocked.ended - before >= 300000 && blocked.ended - before < 300100);

    begin(&blocked, call_read, fd);
    inject(8081, R, 5, 0, "", 0);
    CHECK(pthread_join(blocked.thread, NULL) == 0);
    CHECK(blocked.result == -1 && blocked.error == ECONNRESET);

    before = now();
    struct pollfd asked = {.fd = listener, .events = POLLIN};
    CHECK(api.poll(api.userdata, &asked, 1, 50) == 0); /* blocks in the thread that drives: time goes on by itself */
    CHECK(now() - before >= 50000);
    CHECK(api.close(api.userdata, fd) == 0 && api.close(api.userdata, listener) == 0);
}

static void check_epoll_and_pipes(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef0}, ready[2];
    int listener = listen_on(8082), ends[2];
    int epfd = api.epoll_create(api.userdata, 1);
    CHECK(epfd >= 0);
    CHECK(api.epoll_ctl(api.userdata, epfd, EPOLL_CTL_ADD, listener, &event) == 0);
    CHECK(api.epoll_ctl(api.userdata, epfd, EPOLL_CTL_ADD, listener, &event) == -1 && errno == EEXIST);
    CHECK(api.epoll_wait(api.userdata, epfd, ready, 2, 0) == 0);
    uint32_t iss = shake_hands(8082);
    CHECK(api.epoll_wait(api.userdata, epfd, ready, 2, 0) == 1);
    CHECK(ready[0].events == EPOLLIN && ready[0].data.u64 == event.data.u64);
    int fd = api.accept(api.userdata, listener, NULL, NULL);
    CHECK(fd >= 0);
    inject(8082, P | A, 1, iss + 1, "spliced", 7);
    CHECK(api.pipe(api.userdata, ends) == 0);
    CHECK(api.splice(api.userdata, fd, NULL, ends[1], NULL, 100, 0) == 7);
    char buffer[10];
    CHECK(read(ends[0], buffer, sizeof buffer) == 7 && memcmp(buffer, "spliced", 7) == 0);
    CHECK(api.close(api.userdata, epfd) == 0);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    CHECK(inet_aton("10.9.8.7", &ours) && inet_aton("192.0.2.1", &theirs));
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | RTLD_DEEPBIND);
    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library != NULL);
    void (*init)(const char *, struct packetdrill_interface *) = NULL;
    *(void **)&init = dlsym(library, "packetdrill_interface_init");
    CHECK(init != NULL);
    init("local=10.9.8.7,mtu=1500", &api);
    CHECK(getenv("LD_PRELOAD") == NULL);
    check_the_clock();
    check_nothing_leaves();
    check_errors();
    check_a_served_connection();
    check_a_connecting_socket();
    check_calls_that_block();
    check_epoll_and_pipes();
    api.free(api.userdata);
    puts("ok");
    return 0;
}
