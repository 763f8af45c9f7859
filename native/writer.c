/* From a record and payload views to frames on a descriptor. Twin: class Writer in tunstack/wire/twin.py. */
#include "tunstack.h"

#include <errno.h>
#include <unistd.h>

enum { NEEDS_CSUM = 1, GSO_TCPV4 = 1, GSO_ECN = 0x80, CHECKSUM_OFFSET = 16 };

/* The legacy virtio_net_hdr, in the machine's byte order. */
static void put_vnet(uint8_t *out, unsigned flags, unsigned gso_type, size_t hdr_len, size_t gso_size, size_t csum_start,
                     size_t csum_offset)
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
        if ((count == 1 ? write(fd, views->iov_base, views->iov_len) : writev(fd, views, (int)count)) >= 0)
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

/* A place in the payload: so much of that view was taken before. */
struct place {
    unsigned view;
    size_t skip;
};

/* Takes from the payload, at the place, what is left of the view there but size at most; returns how much, and where in *data. */
static size_t take(const struct ts_writer *writer, struct place *place, size_t size, const uint8_t **data)
{
    const struct iovec *from = &writer->views[place->view];
    *data = (const uint8_t *)from->iov_base + place->skip;
    if (size < from->iov_len - place->skip) {
        place->skip += size;
        return size;
    }
    size = from->iov_len - place->skip;
    place->view++;
    place->skip = 0;
    return size;
}

/* The queue is full. At the first packet of a run nothing was sent, and 0 says so; later the rest is lost, as in any full queue. */
static int queue_is_full(struct ts_writer *writer, const struct ts_record *record, size_t start, size_t total)
{
    if (start == 0)
        return 0;
    writer->lost += (total - start + record->gso_size - 1) / record->gso_size;
    return 1;
}

/* Sends the segment as one frame, or as many as hold it, of whole packets each, with partial checksums, to be cut by the other side. */
static int send_super(struct ts_writer *writer, const struct ts_record *record, size_t total)
{
    uint8_t *packet = writer->scratch + TS_VNET;
    struct ts_header header;
    if (!ts_header_begin(&header, record, packet))
        return -EMSGSIZE;
    size_t gso_size = record->gso_size;
    size_t room = TS_MAX_PACKET - header.length;
    size_t size = 0; /* of the payload of each frame; 0: of all of it */
    if (total > room) {
        if (gso_size == 0 || gso_size > room || record->flags & TS_SYN)
            return -EMSGSIZE;
        size = room - room % gso_size;
    }
    struct place place = {1, 0};
    size_t start = 0;
    do {
        struct ts_part part = ts_cut(record, size, total, start, gso_size ? (uint32_t)(start / gso_size) : 0);
        ts_header_set(&header, &part, packet);
        bool is_run = gso_size > 0 && gso_size < part.size && !(record->flags & TS_SYN);
        unsigned gso_type = is_run ? GSO_TCPV4 | (part.flags & TS_CWR ? GSO_ECN : 0u) : 0u;
        put_vnet(writer->scratch, NEEDS_CSUM, gso_type, is_run ? header.length : 0, is_run ? gso_size : 0, TS_IP_HEADER, CHECKSUM_OFFSET);
        struct iovec views[1 + TS_MAX_VIEWS] = {{writer->scratch, TS_VNET + header.length}};
        unsigned count = 1;
        for (size_t left = part.size; left > 0; count++) {
            const uint8_t *data;
            views[count].iov_len = take(writer, &place, left, &data);
            views[count].iov_base = (void *)(uintptr_t)data; /* writev only reads it */
            left -= views[count].iov_len;
        }
        int result = put_frame(writer->fd, views, count);
        if (result == 0)
            return queue_is_full(writer, record, start, total);
        if (result < 0)
            return result;
        writer->octets += header.length + part.size;
        start += part.size;
    } while (start < total);
    return 1;
}

/* Copies the next size octets of the payload to out; returns their ts_word_sum, folded or not. */
static uint32_t gather(const struct ts_writer *writer, struct place *place, size_t size, uint8_t *out)
{
    uint32_t sum = 0;
    for (size_t done = 0; done < size;) {
        const uint8_t *data;
        size_t part = take(writer, place, size - done, &data);
        uint32_t words = ts_copy_sum(out + done, data, part);
        /* from an odd octet on the halves of each word have changed places, and so have those of the sum (RFC 1071 2 B) */
        sum += done & 1 ? (words >> 8 | words << 8) & 0xFFFF : words;
        done += part;
    }
    return sum;
}

/* Sends the segment cut to packets. Copying and checksumming is one pass, over one packet at a time, which stays in the first-level
 * cache for the kernel to copy. */
static int send_packets(struct ts_writer *writer, const struct ts_record *record, size_t total)
{
    size_t prefix = writer->vnet ? TS_VNET : 0;
    uint8_t *packet = writer->scratch + prefix;
    memset(writer->scratch, 0, prefix);
    struct ts_header header;
    if (!ts_header_begin(&header, record, packet))
        return -EMSGSIZE;
    struct place place = {1, 0};
    size_t start = 0;
    uint32_t index = 0;
    do {
        struct ts_part part = ts_cut(record, record->gso_size, total, start, index++);
        if (part.size > TS_MAX_PACKET - header.length)
            return -EMSGSIZE; /* at the first packet, if at all: none is larger */
        ts_header_set(&header, &part, packet);
        ts_header_checksum(&header, &part, gather(writer, &place, part.size, packet + header.length), packet);
        struct iovec frame = {writer->scratch, prefix + header.length + part.size};
        int result = put_frame(writer->fd, &frame, 1);
        if (result == 0)
            return queue_is_full(writer, record, start, total);
        if (result < 0)
            return result;
        writer->octets += header.length + part.size;
        start += part.size;
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
    int result = writer->vnet ? put_frame(writer->fd, views, 2) : put_frame(writer->fd, views + 1, 1);
    if (result == 1)
        writer->octets += length;
    return result;
}
