/* From a descriptor to a batch of records. Twin: class Reader in tunstack/wire/twin.py. */
#include "tunstack.h"

#include <errno.h>
#include <unistd.h>

enum { NEEDS_CSUM = 1, DATA_VALID = 2, GSO_TCPV4 = 1, GSO_ECN = 0x80 };
enum { SMALL = 2048 }; /* octets of a frame that is no part of a bulk transfer, which would have filled it */

/* VIRTIO 1.2, 5.1.6, legacy form: a TUN interface has it in the machine's byte order */
struct vnet {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t hdr_len;
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
};
_Static_assert(sizeof(struct vnet) == TS_VNET, "no padding");
_Static_assert(TS_SLOT >= TS_MAX_FRAME && TS_SLOT >= TS_VNET + 60 + 60 + TS_MAX_RUN, "room for a frame and for a run");
_Static_assert(sizeof(struct ts_record) == 128, "native.py knows the layout");

void ts_reader_begin(struct ts_reader *reader)
{
    reader->count = 0;
    reader->checksum_errors = 0;
    reader->header_errors = 0;
    reader->ignored = 0;
    reader->is_unusual = false;
}

/* Completes the partial checksum of a valid IPv4 packet that is not TCP, as Linux does (skb_checksum_help); false if it lies outside. */
static bool complete_checksum(uint8_t *packet, size_t length, size_t start, size_t offset)
{
    size_t header = (packet[0] & 0xFu) * 4;
    if (start < header || start + offset + 2 > length)
        return false;
    uint32_t check = ts_checksum(packet + start, length - start, 0);
    ts_put16(packet + start + offset, check ? check : 0xFFFF); /* 0 means "no checksum" in UDP */
    return true;
}

/* The record that a segment of this flow may be appended to: the latest, or the flow's segments would change places. */
static uint32_t latest_of_flow(const struct ts_reader *reader, const uint8_t *flow)
{
    for (uint32_t i = reader->count; i-- > 0;)
        if (!(reader->records[i].present & TS_IS_PACKET) && memcmp(reader->records[i].flow, flow, 12) == 0)
            return i;
    return reader->count;
}

/* Counts a frame that is not handed on. */
static void is_wrong(struct ts_reader *reader, uint32_t *counter)
{
    ++*counter;
    reader->is_unusual = true;
}

/* Takes the frame of length octets that lies in slot `count`. */
static void take(struct ts_reader *reader, size_t length)
{
    uint32_t slot = reader->count;
    uint32_t begin = slot * TS_SLOT; /* slots * TS_SLOT fits 32 bits, see native.py */
    struct vnet vnet = {0, 0, 0, 0, 0, 0};
    if (reader->vnet) {
        if (length < TS_VNET) {
            is_wrong(reader, &reader->header_errors);
            return;
        }
        memcpy(&vnet, reader->buffer + begin, TS_VNET);
        begin += TS_VNET;
        length -= TS_VNET;
    }
    if (length > TS_MAX_PACKET) {
        is_wrong(reader, &reader->header_errors);
        return;
    }
    uint8_t *packet = reader->buffer + begin;
    struct ts_record *record = &reader->records[slot];
    struct ts_run *run = &reader->runs[slot];
    uint32_t tcp;
    switch (ts_parse(packet, length, !(vnet.flags & (NEEDS_CSUM | DATA_VALID)), record, &tcp)) {
    case TS_SEGMENT:
        if ((vnet.gso_type & ~GSO_ECN) == GSO_TCPV4 && vnet.gso_size > 0 && vnet.gso_size < record->length) {
            record->gso_size = vnet.gso_size;
            record->packets = (uint16_t)((record->length + vnet.gso_size - 1) / vnet.gso_size);
        }
        ts_run_start(run, record, begin + tcp + TS_TCP_HEADER, (uint16_t)(record->offset - tcp - TS_TCP_HEADER));
        record->offset += begin;
        reader->octets += record->offset - begin + record->length;
        if (slot > 0 && (reader->coalesce || reader->coalesce_acks)) {
            uint32_t head = latest_of_flow(reader, record->flow);
            if (head < slot) {
                if (reader->coalesce && ts_run_absorb(&reader->runs[head], &reader->records[head], reader->buffer, run, record))
                    return;
                if (reader->coalesce_acks && ts_ack_absorb(&reader->runs[head], &reader->records[head], record))
                    return;
                run->advances = ts_ack_advances(&reader->records[head], record);
            }
        }
        if (record->present & TS_HAS_OPTIONS)
            reader->is_unusual = true;
        reader->count++;
        return;
    case TS_PACKET:
        reader->is_unusual = true;
        if (vnet.flags & NEEDS_CSUM && !complete_checksum(packet, record->length, vnet.csum_start, vnet.csum_offset)) {
            reader->header_errors++;
            return;
        }
        reader->octets += record->length;
        record->offset = begin;
        reader->count++;
        return;
    case TS_HEADER_ERROR:
        is_wrong(reader, &reader->header_errors);
        return;
    case TS_CHECKSUM_ERROR:
        is_wrong(reader, &reader->checksum_errors);
        return;
    case TS_IGNORED:
        is_wrong(reader, &reader->ignored);
        return;
    }
}

void ts_reader_add(struct ts_reader *reader, const uint8_t *frame, size_t length)
{
    if (length > TS_MAX_FRAME) {
        is_wrong(reader, &reader->header_errors);
        return;
    }
    if (length > 0)
        memcpy(reader->buffer + (size_t)reader->count * TS_SLOT, frame, length);
    take(reader, length);
}

int ts_reader_read(struct ts_reader *reader, int fd)
{
    uint32_t frames = 0;
    size_t octets = 0;
    int flags = 0;
    ts_reader_begin(reader);
    while (frames < reader->max_frames && octets < reader->max_octets) {
        ssize_t length = read(fd, reader->buffer + (size_t)reader->count * TS_SLOT, TS_MAX_FRAME);
        if (length > 0) {
            take(reader, (size_t)length);
            frames++;
            octets += (size_t)length;
            continue;
        }
        if (length < 0 && errno == EINTR)
            continue;
        if (frames == 0 && !(length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)))
            return length < 0 ? -errno : -ENODEV;
        if (frames == 1 && octets < SMALL)
            flags |= TS_DRAINED;
        break;
    }
    if (reader->is_unusual)
        flags |= TS_UNUSUAL;
    return (int)reader->count | flags;
}
