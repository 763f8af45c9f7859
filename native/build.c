/* Building of headers, and cutting of segments into packets. Twin: tunstack/wire/tcp.py, and cut() and encode() in twin.py.
 *
 * RFC 9293 3.1 and 3.2, RFC 7323 appendix A, RFC 2018 3. The order of the options is Linux's (tcp_options_write).
 */
#include "tunstack.h"

#include <errno.h>

enum { NOP = 1, MSS = 2, WSCALE = 3, SACK_OK = 4, SACK = 5, TIMESTAMP = 8 };

static uint8_t *put4(uint8_t *out, uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
    return out + 4;
}

/* Writes the options to out[0..TS_MAX_OPTIONS); returns their length, a multiple of 4, or -1 where they do not fit. Of the SACK
 * blocks as many go as the other options leave room for. */
static int build_options(const struct ts_record *record, uint8_t *out)
{
    uint8_t *at = out; /* MSS, SACK-permitted, timestamp and window scale are 20 octets at most */
    bool sack_ok = record->present & TS_HAS_SACK_OK;
    if (record->present & TS_HAS_MSS)
        at = put4(at, MSS, 4, (uint8_t)(record->mss >> 8), (uint8_t)record->mss);
    if (record->present & TS_HAS_TIMESTAMP) {
        at = put4(at, sack_ok ? SACK_OK : NOP, sack_ok ? 2 : NOP, TIMESTAMP, 10);
        ts_put32(at, record->ts_val);
        ts_put32(at + 4, record->ts_ecr);
        at += 8;
    } else if (sack_ok) {
        at = put4(at, NOP, NOP, SACK_OK, 2);
    }
    if (record->present & TS_HAS_WSCALE)
        at = put4(at, NOP, WSCALE, 3, record->wscale);

    size_t further = record->present & TS_HAS_OPTIONS ? record->options_length : 0;
    if (further > TS_MAX_OPTIONS - (size_t)(at - out) || further % 4 != 0)
        return -1;
    size_t room = TS_MAX_OPTIONS - (size_t)(at - out) - further;
    if (record->present & TS_HAS_SACK && room >= 12) {
        size_t blocks = (room - 4) / 8; /* 4 at most, 40 octets being the room */
        if (blocks > record->sack_count)
            blocks = record->sack_count;
        if (blocks > 0)
            at = put4(at, NOP, NOP, SACK, (uint8_t)(2 + 8 * blocks));
        for (size_t i = 0; i < 2 * blocks; i++, at += 4)
            ts_put32(at, record->sack[i]);
    }
    memcpy(at, record->options, further);
    return (int)(at - out + (ptrdiff_t)further);
}

size_t ts_build_header(const struct ts_record *record, size_t payload, uint8_t *out)
{
    uint8_t *tcp = out + TS_IP_HEADER;
    int options = build_options(record, tcp + TS_TCP_HEADER);
    if (options < 0)
        return 0;
    size_t header = TS_IP_HEADER + TS_TCP_HEADER + (size_t)options;
    if (payload > TS_MAX_PACKET - header)
        return 0;
    size_t total = header + payload;

    out[0] = 0x45;
    out[1] = record->tos;
    ts_put16(out + 2, (uint32_t)total);
    ts_put16(out + 4, record->ident);
    ts_put16(out + 6, 0x4000); /* DF: TCP never relies on fragmentation, RFC 9293 3.7.1 */
    out[8] = record->ttl;
    out[9] = 6;
    ts_put16(out + 10, 0);
    memcpy(out + 12, record->flow, 8);
    ts_put16(out + 10, ts_checksum(out, TS_IP_HEADER, 0));

    memcpy(tcp, record->flow + 8, 4);
    ts_put32(tcp + 4, record->seq);
    ts_put32(tcp + 8, record->ack);
    tcp[12] = (uint8_t)((size_t)(TS_TCP_HEADER + options) << 2 | (record->flags >> 8 & 1));
    tcp[13] = (uint8_t)record->flags;
    ts_put16(tcp + 14, record->window);
    ts_put16(tcp + 16, ts_fold((uint64_t)ts_word_sum(record->flow, 8) + 6 + total - TS_IP_HEADER));
    ts_put16(tcp + 18, record->urgent);
    return header;
}

void ts_complete_tcp(uint8_t *frame, size_t length)
{
    /* the field holds the pseudo-header's sum, so the sum over the TCP octets includes it */
    ts_put16(frame + TS_IP_HEADER + 16, ts_checksum(frame + TS_IP_HEADER, length - TS_IP_HEADER, 0));
}

size_t ts_cut(const struct ts_record *record, size_t total, size_t start, uint32_t index, struct ts_record *packet)
{
    size_t size = record->gso_size;
    *packet = *record;
    if (size == 0 || size >= total || record->flags & TS_SYN)
        return total;
    if (size > total - start)
        size = total - start;
    unsigned flags = record->flags;
    if (start > 0)
        flags &= ~(unsigned)TS_CWR; /* RFC 3168 6.1.2: one CWR answers the ECE */
    if (start + size < total)
        flags &= ~(unsigned)(TS_PSH | TS_FIN);
    if (flags & TS_URG) {
        packet->urgent = start < record->urgent ? (uint16_t)(record->urgent - start) : 0;
        if (packet->urgent == 0)
            flags &= ~(unsigned)TS_URG;
    }
    packet->flags = (uint16_t)flags;
    packet->seq = record->seq + (uint32_t)start;
    packet->ident = (uint16_t)(record->ident + index);
    return size;
}

int64_t ts_encode(const void *record, const uint8_t *data, size_t length, uint8_t *out, size_t size)
{
    struct ts_record segment;
    memcpy(&segment, record, sizeof segment);
    size_t start = 0;
    size_t used = 0;
    uint32_t index = 0;
    do {
        struct ts_record packet;
        size_t part = ts_cut(&segment, length, start, index++, &packet);
        uint8_t header[TS_MAX_HEADER];
        size_t header_length = ts_build_header(&packet, part, header);
        if (header_length == 0 || header_length + part > size - used)
            return -EMSGSIZE;
        memcpy(out + used, header, header_length);
        if (part > 0)
            memcpy(out + used + header_length, data + start, part);
        ts_complete_tcp(out + used, header_length + part);
        used += header_length + part;
        start += part;
    } while (start < length);
    return (int64_t)used;
}
