/* From a record and payload views to frames on a descriptor. Twin: class Writer in tunstack/wire/twin.py. */
#include "tunstack.h"

#include <errno.h>
#include <unistd.h>

enum { NEEDS_CSUM = 1, GSO_TCPV4 = 1, GSO_ECN = 0x80, CHECKSUM_OFFSET = 16 };

/* The legacy virtio_net_hdr, in the machine's byte order. */
static void put_vnet(uint8_t *out, unsigned flags, unsigned gso_type, size_t hdr_len, size_t gso_size, size_t csum_start, size_t csum_offset)
{
    uint16_t words[4] = {(uint16_t)hdr_len, (uint16_t)gso_size, (uint16_t)csum_start, (uint16_t)csum_offset};
    out[0] = (uint8_t)flags;
    out[1] = (uint8_t)gso_type;
    memcpy(out + 2, words, 8);
}

/* Sends one frame; as ts_writer_send. */
static int put_frame(int fd, const struct iovec *views, unsigned count)
{
    for (;;) {
        if (writev(fd, views, (int)count) >= 0)
            return 1;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

void ts_writer_push(struct ts_writer *writer, const uint8_t *data, size_t length)
{
    if (length == 0)
        return;
    writer->count++;
    writer->views[writer->count].iov_base = (void *)(uintptr_t)data; /* writev only reads it */
    writer->views[writer->count].iov_len = length;
}

/* Sends the whole segment as one frame with a partial checksum, to be cut by the other side. */
static int send_super(struct ts_writer *writer, const struct ts_record *record, size_t total)
{
    uint8_t *packet = writer->scratch + TS_VNET;
    size_t header = ts_build_header(record, total, packet);
    if (header == 0)
        return -EMSGSIZE;
    bool is_run = record->gso_size > 0 && record->gso_size < total && !(record->flags & TS_SYN);
    unsigned gso_type = is_run ? GSO_TCPV4 | (record->flags & TS_CWR ? GSO_ECN : 0u) : 0u;
    put_vnet(writer->scratch, NEEDS_CSUM, gso_type, is_run ? header : 0, is_run ? record->gso_size : 0, TS_IP_HEADER, CHECKSUM_OFFSET);
    writer->views[0].iov_base = writer->scratch;
    writer->views[0].iov_len = TS_VNET + header;
    return put_frame(writer->fd, writer->views, 1 + writer->count);
}

/* Copies the next size octets of the payload to out; view and skip say how far it was copied before. */
static void gather(const struct ts_writer *writer, unsigned *view, size_t *skip, size_t size, uint8_t *out)
{
    while (size > 0) {
        const struct iovec *from = &writer->views[*view];
        size_t part = from->iov_len - *skip;
        if (part > size)
            part = size;
        memcpy(out, (const uint8_t *)from->iov_base + *skip, part);
        out += part;
        size -= part;
        *skip += part;
        if (*skip == from->iov_len) {
            (*view)++;
            *skip = 0;
        }
    }
}

/* Sends the segment cut to packets. Copying and checksumming go over one packet at a time, which stays in the first-level cache. */
static int send_packets(struct ts_writer *writer, const struct ts_record *record, size_t total)
{
    size_t prefix = writer->vnet ? TS_VNET : 0;
    uint8_t *packet = writer->scratch + prefix;
    size_t start = 0;
    uint32_t index = 0;
    unsigned view = 1;
    size_t skip = 0;
    memset(writer->scratch, 0, prefix);
    do {
        struct ts_record one;
        size_t part = ts_cut(record, total, start, index, &one);
        size_t header = ts_build_header(&one, part, packet);
        if (header == 0)
            return -EMSGSIZE; /* at the first packet, if at all: none is larger, or has other options */
        gather(writer, &view, &skip, part, packet + header);
        ts_complete_tcp(packet, header + part);
        struct iovec frame = {writer->scratch, prefix + header + part};
        int result = put_frame(writer->fd, &frame, 1);
        if (result == 0 && index > 0) { /* the queue is full: what follows is lost, as in any full queue */
            writer->lost += 1 + (total - start - part + record->gso_size - 1) / record->gso_size;
            return 1;
        }
        if (result <= 0)
            return result;
        start += part;
        index++;
    } while (start < total);
    return 1;
}

int ts_writer_send(struct ts_writer *writer, const void *record, const uint8_t *data, size_t length)
{
    struct ts_record segment;
    memcpy(&segment, record, sizeof segment);
    ts_writer_push(writer, data, length);
    size_t total = 0;
    for (unsigned i = 1; i <= writer->count; i++)
        total += writer->views[i].iov_len;
    /* the other side would cut a run with one urgent pointer for all packets */
    bool whole = writer->tso && !(segment.flags & TS_URG);
    int result = whole ? send_super(writer, &segment, total) : send_packets(writer, &segment, total);
    writer->count = 0;
    return result;
}

int ts_writer_send_packet(struct ts_writer *writer, const uint8_t *packet, size_t length)
{
    if (length > TS_MAX_PACKET)
        return -EMSGSIZE;
    memset(writer->scratch, 0, TS_VNET);
    struct iovec views[2] = {{writer->scratch, TS_VNET}, {(void *)(uintptr_t)packet, length}};
    return writer->vnet ? put_frame(writer->fd, views, 2) : put_frame(writer->fd, views + 1, 1);
}
