/* What C does for tunstack: checksums, checking and parsing of frames, coalescing, headers, reading and writing.
 *
 * It holds no connection and makes no decision. Each function has a twin in plain Python (tunstack/wire/), which is its
 * reference in the tests. Lengths are octets; numbers in structures are in the machine's byte order unless said otherwise;
 * no pointer needs any alignment except those to structures.
 */
#ifndef TUNSTACK_H
#define TUNSTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

enum {
    TS_VNET = 10,              /* virtio_net_hdr, legacy form: VIRTIO 1.2, 5.1.6 */
    TS_MAX_PACKET = 65535,     /* IPv4 */
    TS_MAX_FRAME = TS_VNET + TS_MAX_PACKET,
    TS_IP_HEADER = 20,         /* without options */
    TS_TCP_HEADER = 20,        /* without options */
    TS_MAX_OPTIONS = 40,       /* of either header */
    TS_MAX_HEADER = TS_IP_HEADER + TS_TCP_HEADER + TS_MAX_OPTIONS,  /* of what we build: no IPv4 options */
    TS_MAX_RUN = 65535,        /* payload of coalesced segments */
    /* room for one frame, or for the headers of one and a run's payload; not a multiple of 4096, or slots share cache sets */
    TS_SLOT = 65728,
    TS_MAX_VIEWS = 16          /* payload views of a segment to be sent */
};

/* verdicts on a frame; tunstack/wire/tcp.py has the same numbers */
enum ts_verdict { TS_SEGMENT = 0, TS_PACKET = 1, TS_HEADER_ERROR = 2, TS_CHECKSUM_ERROR = 3, TS_IGNORED = 4 };

enum { TS_FIN = 0x001, TS_SYN = 0x002, TS_PSH = 0x008, TS_ACK = 0x010, TS_URG = 0x020, TS_CWR = 0x080 };

/* ts_record.present */
enum {
    TS_HAS_TIMESTAMP = 1,
    TS_HAS_MSS = 2,
    TS_HAS_WSCALE = 4,
    TS_HAS_SACK_OK = 8,
    TS_HAS_SACK = 16,
    TS_HAS_OPTIONS = 32, /* options[] holds something: received, all option octets, since one is not among the above; sent, further ones */
    TS_IS_PACKET = 64    /* not a TCP segment: offset and length are those of the whole IPv4 packet, the rest is 0 */
};

/* One segment, in both directions. tunstack/wire/native.py knows this layout by its offsets. */
struct ts_record {
    uint8_t flow[12];        /* addresses and ports as in the packet, network order */
    uint32_t seq;
    uint32_t ack;            /* received: 0 without the ACK flag */
    uint32_t ts_val;
    uint32_t ts_ecr;
    uint32_t offset;         /* received: where in the buffer the payload begins */
    uint32_t length;         /* received: of the payload */
    uint16_t gso_size;       /* payload of each packet of a run, 0: one packet */
    uint16_t flags;          /* nine of them */
    uint16_t window;
    uint16_t urgent;
    uint16_t ident;
    uint16_t packets;        /* received: how many this stands for */
    uint16_t mss;
    uint8_t tos;
    uint8_t ttl;
    uint8_t wscale;
    uint8_t present;
    uint8_t sack_count;      /* 0..4 */
    uint8_t options_length;  /* 0..40, a multiple of 4 */
    uint32_t sack[8];        /* left and right edges */
    uint8_t options[TS_MAX_OPTIONS];
};

/* ---- checksum.c: RFC 1071 ---- */

/* The sum of the big-endian words of data[0..length), the last one padded with a zero, folded to 16 bits.
 * 0 only where all octets are 0. length < 2^32. */
uint32_t ts_word_sum(const uint8_t *data, size_t length);

/* Folds any sum to 16 bits with end-around carry; 0 only for 0. */
uint32_t ts_fold(uint64_t sum);

/* As ts_word_sum, and copies the octets to out[0..length) in the same pass; the two do not overlap. */
uint32_t ts_copy_sum(uint8_t *restrict out, const uint8_t *restrict data, size_t length);

/* The checksum for a header: the complement of initial plus the sum over data[0..length). length < 2^32. */
uint16_t ts_checksum(const uint8_t *data, size_t length, uint64_t initial);

/* ---- parse.c: RFC 791 3.1, RFC 9293 3.1 ---- */

/* Checks and parses the IPv4 packet that begins at packet; length octets may be read, what is beyond its total length is padding.
 * verify: look at the TCP checksum. On TS_SEGMENT and TS_PACKET every field of *record is set (offset relative to packet), and
 * *tcp is where the TCP header begins (0 for a packet); otherwise both are undefined. */
enum ts_verdict ts_parse(const uint8_t *packet, size_t length, bool verify, struct ts_record *record, uint32_t *tcp);

/* As ts_parse with all checks, for a whole packet that is not in a reader's buffer; *record is a struct ts_record of any alignment.
 * Returns whether it holds a valid segment. */
bool ts_parse_datagram(const uint8_t *packet, size_t length, void *record);

/* ---- build.c: RFC 9293 3.1, 3.2 ---- */

/* What the packets of a run have in common: their headers are written once, and changed in place from packet to packet. */
struct ts_header {
    size_t length;             /* of both headers */
    uint32_t ip_sum;           /* of the IPv4 header, without what ts_header_set sets */
    uint32_t pseudo_sum;       /* of the pseudo-header, without the length */
    uint32_t tcp_sum;          /* of that and the TCP header, without what ts_header_set sets */
};

/* What distinguishes them. */
struct ts_part {
    size_t size;               /* octets of payload */
    uint32_t seq;
    uint16_t flags;
    uint16_t urgent;
    uint16_t ident;
};

/* Writes what all packets of a segment have in common of IPv4 and TCP header to out[0..TS_MAX_HEADER): all of the record is used but
 * offset, length, gso_size, packets and what is in a ts_part. Returns false where the options do not fit. */
bool ts_header_begin(struct ts_header *header, const struct ts_record *record, uint8_t *out);

/* Completes the headers at out for a packet, header->length + part->size <= 65535, but for the TCP checksum: there is the
 * pseudo-header's sum, as virtio's NEEDS_CSUM wants it. */
void ts_header_set(const struct ts_header *header, const struct ts_part *part, uint8_t *out);

/* Puts the full TCP checksum there. payload_sum: ts_word_sum of the payload. After ts_header_set. */
void ts_header_checksum(const struct ts_header *header, const struct ts_part *part, uint32_t payload_sum, uint8_t *out);

/* How a run of `total` octets is cut to parts of `size`: the part whose payload begins at start, which is packet number index of the run,
 * from 0. One part if size is 0 or at least total, or for a SYN. start < total, or both 0. */
struct ts_part ts_cut(const struct ts_record *record, size_t size, size_t total, size_t start, uint32_t index);

/* Writes the packets of a segment one after another to out[0..size): full checksums, payload from data[0..length). *record is a
 * struct ts_record, of any alignment. Returns how many octets, or -EMSGSIZE where a header or the packets do not fit. */
int64_t ts_encode(const void *record, const uint8_t *data, size_t length, uint8_t *out, size_t size);

/* ---- gro.c: coalescing ---- */

/* What is known of a record that may yet grow. */
struct ts_run {
    uint32_t options;         /* where in the buffer the option octets of its first packet are */
    uint16_t options_length;
    uint16_t unit;            /* payload octets of each packet but the last */
    bool is_open;
    bool advances;            /* it acknowledges more than the segment of its flow before it, in this batch */
};

/* Sets up the run of a new record; its options lie at buffer offset `options`. */
void ts_run_start(struct ts_run *run, const struct ts_record *record, uint32_t options, uint16_t options_length);

/* Appends segment `next`, described by `next_run`, to `head` if it continues that, and tells whether it did. Offsets are into buffer;
 * head's payload lies in a slot with room for TS_MAX_RUN octets, which next's payload does not overlap. */
bool ts_run_absorb(struct ts_run *run, struct ts_record *head, uint8_t *buffer, const struct ts_run *next_run,
                   const struct ts_record *next);

/* Puts the bare ACK `next` in the place of the bare ACK `head`, described by `run`, if that advances and `next` does so beyond it, and
 * tells whether it did. Nothing that a duplicate ACK, a SACK block, an ECN mark or an unknown option says is ever lost so. */
bool ts_ack_absorb(const struct ts_run *run, struct ts_record *head, const struct ts_record *next);

/* Whether `next` acknowledges more than `head`, which came before it. */
bool ts_ack_advances(const struct ts_record *head, const struct ts_record *next);

/* ---- reader.c ---- */

/* Flags of a batch, above its number of records (ts_reader_read) */
enum {
    TS_COUNT = 0xFFFF,
    TS_UNUSUAL = 1 << 16 /* there are errors to be counted, or packets, or unknown options */
};

/* One batch. Slot i of the buffer holds the frame that record i began with; slot `count` is where the next frame goes. */
struct ts_reader {
    uint8_t *buffer;           /* slots * TS_SLOT octets */
    struct ts_record *records; /* slots of them */
    struct ts_run *runs;       /* slots of them */
    uint64_t octets;           /* of IPv4 packets, ever */
    uint32_t slots;            /* at most TS_COUNT */
    uint32_t max_frames;       /* that ts_reader_read reads, <= slots */
    uint32_t max_octets;       /* after which it reads no further frame */
    uint32_t count;            /* records of this batch, <= slots */
    uint32_t checksum_errors;
    uint32_t header_errors;
    uint32_t ignored;
    uint8_t looks_to_skip;     /* so often ts_reader_read leaves it at one frame that is small data */
    bool is_unusual;           /* TS_UNUSUAL */
    bool vnet;
    bool coalesce;             /* data */
    bool coalesce_acks;
};

/* Begins a new batch. */
void ts_reader_begin(struct ts_reader *reader);

/* Adds frame[0..length), which is copied. The caller has seen to it that count < slots. */
void ts_reader_add(struct ts_reader *reader, const uint8_t *frame, size_t length);

/* Begins a new batch and reads from a non-blocking descriptor, all that is there but for the limits. Only where a few octets of data came,
 * and the last look behind such a frame was in vain, it does not look for some time: most often the peer waits for an answer. Returns the
 * number of records, with flags as above, or -errno if nothing was read because of an error (-ENODEV for an end of file). */
int ts_reader_read(struct ts_reader *reader, int fd);

/* ---- writer.c ---- */

struct ts_writer {
    struct iovec views[1 + TS_MAX_VIEWS]; /* views[0] is for the headers */
    uint64_t lost;                        /* packets at the end of a run that found the queue full */
    uint64_t octets;                      /* of IPv4 packets or super-segments sent, ever */
    int fd;
    unsigned count;                       /* payload views, in views[1..count] */
    bool vnet;
    bool tso;
    uint8_t scratch[TS_SLOT];             /* one frame */
};

/* Adds a payload view for the next ts_writer_send; it must stay as it is until then. At most TS_MAX_VIEWS in all. */
void ts_writer_push(struct ts_writer *writer, const uint8_t *data, size_t length);

/* Sends a segment with the payload that was pushed followed by data[0..length); the views are forgotten afterwards. *record is a
 * struct ts_record, of any alignment. With tso it leaves as super-segments of whole packets and at most 65535 octets, without as packets.
 * Returns 1, or 0 where it would block and nothing was sent, or -errno; -EMSGSIZE where a header or packet does not fit. */
int ts_writer_send(struct ts_writer *writer, const void *record, const uint8_t *data, size_t length);

/* Sends packet[0..length), a whole IPv4 packet. Returns as ts_writer_send. */
int ts_writer_send_packet(struct ts_writer *writer, const uint8_t *packet, size_t length);

/* ---- unaligned access, network order ---- */

static inline uint16_t ts_get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t ts_get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void ts_put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void ts_put32(uint8_t *p, uint32_t value)
{
    ts_put16(p, value >> 16);
    ts_put16(p + 2, value);
}

#endif
