/* The limit: what a TUN interface and the kernel's end leave to any TCP in user space. An endpoint with none of it.
 *
 *     limit INTERFACE [tso] [every=N]
 *       tso       super-segments both ways, checksums left to the kernel; otherwise frames of 1500 octets, with checksums
 *       every=N   acknowledge every Nth frame of the sink; without, once for each batch that was read
 *
 * It believes what comes: no checksum is looked at, nothing is retransmitted but all of it after a stall, nobody is told of an error.
 * Ports are those of protocols.py: a sink, a source (both for one connection at a time), and an echo, which needs no state at all: an
 * acknowledgement says where the answer belongs. Prints {} when it is ready; runs until it is ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "tun.h"

enum {
    SINK_PORT = 5001,
    SOURCE_PORT = 5002,
    BATCH = 64,              /* frames read before anything is answered */
    MSS = 1460,              /* no timestamps */
    SUPER = 44 * MSS,        /* octets of a super-segment */
    AT_ONCE = 2,             /* super-segments sent between two looks at what came */
    FRAMES_AT_ONCE = 32,     /* the same without TSO */
    WINDOW_SHIFT = 10,
    WINDOW = 4 << 20,        /* advertised with TSO */
    WINDOW_PLAIN = 512 << 10, /* without: what fits the interface's queue of 500 frames, which drops the rest */
    ISS = 1000,
    STALL_MS = 200,
};

static int tun;
static bool tso;
static unsigned ack_every; /* 0: once a batch */

/* What is used of a segment that came. Addresses and ports are in network order. */
struct segment {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
    uint32_t seq, ack, window;
    uint8_t flags;
    const uint8_t *options;
    size_t options_length;
    const uint8_t *payload;
    size_t length;
};

static bool parse(const uint8_t *frame, size_t length, struct segment *segment)
{
    struct iphdr ip;
    struct tcphdr tcp;
    if (length < sizeof ip + sizeof tcp)
        return false;
    memcpy(&ip, frame, sizeof ip);
    size_t ip_length = ip.ihl * 4u;
    if (ip.version != 4 || ip.protocol != IPPROTO_TCP || length < ip_length + sizeof tcp)
        return false;
    memcpy(&tcp, frame + ip_length, sizeof tcp);
    size_t header = ip_length + tcp.doff * 4u;
    if (tcp.doff < 5 || length < header)
        return false;
    *segment = (struct segment){
        .source = ip.saddr,
        .destination = ip.daddr,
        .source_port = tcp.source,
        .destination_port = tcp.dest,
        .seq = ntohl(tcp.seq),
        .ack = ntohl(tcp.ack_seq),
        .window = ntohs(tcp.window),
        .flags = frame[ip_length + 13],
        .options = frame + ip_length + sizeof tcp,
        .options_length = header - ip_length - sizeof tcp,
        .payload = frame + header,
        .length = length - header,
    };
    return true;
}

/* The window scale that a SYN offers; 0 if it offers none. */
static unsigned window_scale(const struct segment *syn)
{
    for (size_t i = 0; i + 2 < syn->options_length && syn->options[i] != TCPOPT_EOL;) {
        if (syn->options[i] == TCPOPT_NOP) {
            i++;
        } else if (syn->options[i] == TCPOPT_WINDOW) {
            return syn->options[i + 2];
        } else {
            if (syn->options[i + 1] < 2)
                break;
            i += syn->options[i + 1];
        }
    }
    return 0;
}

/* One's complement sum, RFC 1071, not yet inverted; of an even number of octets unless it is the last part. */
static uint64_t add(uint64_t sum, const void *data, size_t length)
{
    const uint8_t *at = data;
    for (; length >= 4; at += 4, length -= 4) {
        uint32_t word;
        memcpy(&word, at, sizeof word);
        sum += word;
    }
    uint8_t rest[4] = {0};
    uint32_t word;
    memcpy(rest, at, length);
    memcpy(&word, rest, sizeof word);
    return sum + word;
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* Answers a segment. What the interface does not take is lost. */
static void reply(const struct segment *to, uint32_t seq, uint32_t ack, uint8_t flags, const uint8_t *payload, size_t length)
{
    static const uint8_t syn_options[] = {TCPOPT_MAXSEG, 4, MSS >> 8, MSS & 0xff, TCPOPT_NOP, TCPOPT_WINDOW, 3, WINDOW_SHIFT};
    struct __attribute__((packed)) {
        struct virtio_net_hdr virtio;
        struct iphdr ip;
        struct tcphdr tcp;
        uint8_t options[sizeof syn_options];
    } header = {0};
    size_t options_length = flags & TH_SYN ? sizeof syn_options : 0;
    size_t tcp_length = sizeof header.tcp + options_length;
    memcpy(header.options, syn_options, options_length);
    header.ip = (struct iphdr){
        .version = 4,
        .ihl = 5,
        .tot_len = htons((uint16_t)(sizeof header.ip + tcp_length + length)),
        .frag_off = htons(IP_DF),
        .ttl = 64,
        .protocol = IPPROTO_TCP,
        .saddr = to->destination,
        .daddr = to->source,
    };
    header.ip.check = (uint16_t)~fold(add(0, &header.ip, sizeof header.ip));
    uint32_t window = tso ? WINDOW : WINDOW_PLAIN;
    header.tcp.source = to->destination_port;
    header.tcp.dest = to->source_port;
    header.tcp.seq = htonl(seq);
    header.tcp.ack_seq = htonl(ack);
    header.tcp.doff = (uint16_t)(tcp_length / 4);
    header.tcp.window = htons((uint16_t)(flags & TH_SYN ? 65535 : window >> WINDOW_SHIFT));
    ((uint8_t *)&header.tcp)[13] = flags;
    struct {
        uint32_t source, destination;
        uint16_t protocol, length;
    } pseudo = {to->destination, to->source, htons(IPPROTO_TCP), htons((uint16_t)(tcp_length + length))};
    uint64_t sum = add(0, &pseudo, sizeof pseudo);
    if (tso) { /* the kernel adds the rest, or whoever needs it */
        header.tcp.check = fold(sum);
        header.virtio.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.virtio.csum_start = sizeof header.ip;
        header.virtio.csum_offset = offsetof(struct tcphdr, check);
        if (length > MSS) {
            header.virtio.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
            header.virtio.gso_size = MSS;
            header.virtio.hdr_len = (uint16_t)(sizeof header.ip + tcp_length);
        }
    } else {
        sum = add(sum, &header.tcp, tcp_length);
        header.tcp.check = (uint16_t)~fold(add(sum, payload, length));
    }
    size_t skipped = tso ? 0 : sizeof header.virtio;
    struct iovec parts[] = {
        {.iov_base = (uint8_t *)&header + skipped, .iov_len = sizeof header.virtio - skipped + sizeof header.ip + tcp_length},
        {.iov_base = (void *)payload, .iov_len = length},
    };
    if (writev(tun, parts, length ? 2 : 1) < 0 && errno != EAGAIN && errno != EIO) /* EIO: the interface is not up yet */
        fail("write");
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The connection to the sink. */
static struct {
    struct segment last; /* that came; to be answered */
    uint32_t rcv_nxt;
    unsigned unacknowledged; /* frames */
} sink;

static void acknowledge(void)
{
    if (sink.unacknowledged)
        reply(&sink.last, sink.last.ack, sink.rcv_nxt, TH_ACK, NULL, 0);
    sink.unacknowledged = 0;
}

static void receive_at_sink(const struct segment *segment)
{
    if (!segment->length)
        return;
    uint32_t end = segment->seq + (uint32_t)segment->length;
    if ((int32_t)(end - sink.rcv_nxt) > 0)
        sink.rcv_nxt = end;
    sink.last = *segment;
    if (++sink.unacknowledged == ack_every)
        acknowledge();
}

/* The connection to the source. */
static struct {
    bool is_open;
    struct segment last;
    uint32_t snd_una, snd_nxt, snd_wnd;
    unsigned shift;     /* of the windows that come */
    double progress_at; /* when something was acknowledged last, s */
} source;

static void receive_at_source(const struct segment *segment)
{
    if (!source.is_open && !(segment->flags & TH_FIN)) {
        source.is_open = true;
        source.snd_una = source.snd_nxt = segment->ack;
    }
    source.last = *segment;
    source.snd_wnd = segment->window << source.shift;
    if ((int32_t)(segment->ack - source.snd_una) > 0) {
        source.snd_una = segment->ack;
        if ((int32_t)(source.snd_una - source.snd_nxt) > 0)
            source.snd_nxt = source.snd_una;
        source.progress_at = seconds_now();
    }
    if (segment->flags & TH_FIN)
        source.is_open = false;
}

/* Sends what the window allows, but not more than a few; returns whether anything went. */
static bool send_from_source(void)
{
    static uint8_t payload[SUPER];
    size_t length = tso ? SUPER : MSS;
    int sent = 0;
    if (!source.is_open)
        return false;
    while (sent < (tso ? AT_ONCE : FRAMES_AT_ONCE) && source.snd_nxt - source.snd_una + length <= source.snd_wnd) {
        reply(&source.last, source.snd_nxt, source.last.seq, TH_ACK, payload, length);
        source.snd_nxt += (uint32_t)length;
        sent++;
    }
    return sent > 0;
}

static void receive(const struct segment *segment)
{
    uint16_t port = ntohs(segment->destination_port);
    if (segment->flags & TH_RST) {
        if (port == SOURCE_PORT)
            source.is_open = false;
        return;
    }
    if (segment->flags & TH_SYN) {
        reply(segment, ISS, segment->seq + 1, TH_SYN | TH_ACK, NULL, 0);
        if (port == SINK_PORT) {
            sink.rcv_nxt = segment->seq + 1;
            sink.unacknowledged = 0;
        } else if (port == SOURCE_PORT) {
            source.is_open = false;
            source.shift = window_scale(segment);
        }
        return;
    }
    uint32_t end = segment->seq + (uint32_t)segment->length;
    if (port == SINK_PORT)
        receive_at_sink(segment);
    else if (port == SOURCE_PORT)
        receive_at_source(segment);
    else if (segment->length)
        reply(segment, segment->ack, end, TH_ACK | TH_PUSH, segment->payload, segment->length);
    if (segment->flags & TH_FIN) {
        uint32_t answered = port == SINK_PORT || port == SOURCE_PORT ? 0 : (uint32_t)segment->length;
        reply(segment, segment->ack + answered, end + 1, TH_ACK | TH_FIN, NULL, 0);
    }
}

static _Noreturn void serve(void)
{
    static uint8_t frame[sizeof(struct virtio_net_hdr) + 65536];
    size_t header = tso ? sizeof(struct virtio_net_hdr) : 0;
    struct pollfd readable = {.fd = tun, .events = POLLIN};
    for (;;) {
        int got = 0;
        ssize_t length;
        while (got < BATCH && (length = read(tun, frame, sizeof frame)) >= 0) {
            struct segment segment;
            got++;
            if ((size_t)length > header && parse(frame + header, (size_t)length - header, &segment))
                receive(&segment);
        }
        acknowledge();
        if (send_from_source() || got)
            continue;
        poll(&readable, 1, STALL_MS);
        if (source.is_open && seconds_now() - source.progress_at > 1e-3 * STALL_MS)
            source.snd_nxt = source.snd_una; /* something was lost: all of it again */
    }
}

int main(int count, char **arguments)
{
    for (int i = 2; i < count; i++) {
        if (strcmp(arguments[i], "tso") == 0)
            tso = true;
        else if (sscanf(arguments[i], "every=%u", &ack_every) != 1)
            count = 0;
    }
    if (count < 2) {
        fputs("usage: limit INTERFACE [tso] [every=N]\n", stderr);
        return 2;
    }
    tun = open_tun(arguments[1], tso);
    if (puts("{}") < 0 || fflush(stdout) != 0)
        return 1;
    serve();
}
