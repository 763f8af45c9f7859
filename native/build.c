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

/* The sum of the words of data[0..4 * count), unfolded: for headers, where a loop for long data would not pay. */
static uint32_t header_sum(const uint8_t *data, size_t count)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < 2 * count; i++)
        sum += ts_get16(data + 2 * i);
    return sum;
}

bool ts_header_begin(struct ts_header *header, const struct ts_record *record, uint8_t *out)
{
    uint8_t *tcp = out + TS_IP_HEADER;
    int options = build_options(record, tcp + TS_TCP_HEADER);
    if (options < 0)
        return false;
    size_t tcp_header = TS_TCP_HEADER + (size_t)options;
    out[0] = 0x45;
    out[1] = record->tos;
    ts_put32(out + 2, 0);
    ts_put16(out + 6, 0x4000); /* DF: TCP never relies on fragmentation, RFC 9293 3.7.1 */
    out[8] = record->ttl;
    out[9] = 6;
    ts_put16(out + 10, 0);
    memcpy(out + 12, record->flow, 8);

    memcpy(tcp, record->flow + 8, 4);
    ts_put32(tcp + 4, 0);
    ts_put32(tcp + 8, record->ack);
    tcp[12] = (uint8_t)(tcp_header << 2);
    tcp[13] = 0;
    ts_put16(tcp + 14, record->window);
    ts_put32(tcp + 16, 0);

    header->length = TS_IP_HEADER + tcp_header;
    header->ip_sum = header_sum(out, TS_IP_HEADER / 4);
    header->pseudo_sum = header_sum(record->flow, 2) + 6;
    header->tcp_sum = header->pseudo_sum + header_sum(tcp, tcp_header / 4);
    return true;
}

void ts_header_set(const struct ts_header *header, const struct ts_part *part, uint8_t *out)
{
    uint8_t *tcp = out + TS_IP_HEADER;
    uint32_t total = (uint32_t)(header->length + part->size);
    ts_put16(out + 2, total);
    ts_put16(out + 4, part->ident);
    ts_put16(out + 10, ~ts_fold((uint64_t)header->ip_sum + total + part->ident));
    ts_put32(tcp + 4, part->seq);
    tcp[12] = (uint8_t)((header->length - TS_IP_HEADER) << 2 | (part->flags >> 8 & 1));
    tcp[13] = (uint8_t)part->flags;
    ts_put16(tcp + 16, ts_fold((uint64_t)header->pseudo_sum + total - TS_IP_HEADER));
    ts_put16(tcp + 18, part->urgent);
}

void ts_header_checksum(const struct ts_header *header, const struct ts_part *part, uint32_t payload_sum, uint8_t *out)
{
    uint64_t sum = (uint64_t)header->tcp_sum + header->length - TS_IP_HEADER + part->size + (part->seq >> 16) + (part->seq & 0xFFFF) +
                   (part->flags & 0x1FF) + part->urgent + payload_sum;
    ts_put16(out + TS_IP_HEADER + 16, ~ts_fold(sum));
}

struct ts_part ts_cut(const struct ts_record *record, size_t size, size_t total, size_t start, uint32_t index)
{
    struct ts_part part = {total, record->seq, record->flags, record->urgent, record->ident};
    if (size == 0 || size >= total || record->flags & TS_SYN)
        return part;
    part.size = size < total - start ? size : total - start;
    unsigned flags = record->flags;
    if (start > 0)
        flags &= ~(unsigned)TS_CWR; /* RFC 3168 6.1.2: one CWR answers the ECE */
    if (start + part.size < total)
        flags &= ~(unsigned)(TS_PSH | TS_FIN);
    if (flags & TS_URG) {
        part.urgent = start < record->urgent ? (uint16_t)(record->urgent - start) : 0;
        if (part.urgent == 0)
            flags &= ~(unsigned)TS_URG;
    }
    part.flags = (uint16_t)flags;
    part.seq = record->seq + (uint32_t)start;
    part.ident = (uint16_t)(record->ident + index);
    return part;
}

int64_t ts_encode(const void *record, const uint8_t *data, size_t length, uint8_t *out, size_t size)
{
    struct ts_record segment;
    memcpy(&segment, record, sizeof segment);
    struct ts_header header;
    uint8_t octets[TS_MAX_HEADER];
    if (!ts_header_begin(&header, &segment, octets))
        return -EMSGSIZE;
    size_t start = 0;
    size_t used = 0;
    uint32_t index = 0;
    do {
        struct ts_part part = ts_cut(&segment, segment.gso_size, length, start, index++);
        if (part.size > TS_MAX_PACKET - header.length || header.length + part.size > size - used)
            return -EMSGSIZE;
        uint8_t *packet = out + used;
        memcpy(packet, octets, header.length);
        ts_header_set(&header, &part, packet);
        uint32_t sum = part.size > 0 ? ts_copy_sum(packet + header.length, data + start, part.size) : 0;
        ts_header_checksum(&header, &part, sum, packet);
        used += header.length + part.size;
        start += part.size;
    } while (start < length);
    return (int64_t)used;
}
