/* libFuzzer target: frames in, a batch, packets out, and in again. See README.md for the form of an input.
 *
 * Beside what the sanitizers see it aborts where an invariant of tunstack.h does not hold. tests/native/corpus.py makes the
 * same frames of an input, for the comparison with the plain Python twin.
 */
#include "tunstack.h"

#include <errno.h>
#include <fcntl.h>
#include <sanitizer/asan_interface.h>
#include <stdlib.h>

enum { SLOTS = 16, FOLLOW = 1, FIX_CHECKSUMS = 2, FIX_LENGTH = 4, FLIP_PSH = 8, FLIP_FIN = 16, SECOND_LAST = 32, STRETCH = 64, ADVANCE = 128 };
enum { STRETCH_TIMES = 32 };

#define MUST(condition) \
    do { \
        if (!(condition)) \
            abort(); \
    } while (0)

struct frame {
    uint8_t *data; /* of its own, so that any octet read beyond its length is seen */
    size_t length;
};

/* Where the payload of an IPv4 TCP frame begins, or 0 if its headers do not fit it. */
static size_t payload_at(const struct frame *frame, size_t prefix)
{
    if (frame->length < prefix + 20)
        return 0;
    size_t tcp = prefix + (frame->data[prefix] & 0xFu) * 4;
    if (tcp < prefix + 20 || frame->length < tcp + 20)
        return 0;
    size_t payload = tcp + (frame->data[tcp + 12] >> 4) * 4u;
    return payload >= tcp + 20 && payload <= frame->length ? payload : 0;
}

static void fix_checksums(struct frame *frame, size_t prefix)
{
    if (frame->length < prefix + 20)
        return;
    uint8_t *packet = frame->data + prefix;
    size_t header = (packet[0] & 0xFu) * 4;
    if (header < 20 || prefix + header > frame->length)
        return;
    ts_put16(packet + 10, 0);
    ts_put16(packet + 10, ts_checksum(packet, header, 0));
    size_t total = ts_get16(packet + 2);
    if (packet[9] != 6 || total < header + 20 || prefix + total > frame->length)
        return;
    ts_put16(packet + header + 16, 0);
    ts_put16(packet + header + 16, ts_checksum(packet + header, total - header, ts_word_sum(packet + 12, 8) + 6 + total - header));
}

/* Makes the next frame of size octets at data. */
static struct frame make_frame(unsigned op, const uint8_t *data, size_t size, const struct frame *frames, size_t count, size_t prefix)
{
    size_t times = op & STRETCH ? STRETCH_TIMES : 1;
    size_t header = 0;
    const struct frame *before = NULL;
    if (op & FOLLOW && count > 0) {
        before = &frames[op & SECOND_LAST && count > 1 ? count - 2 : count - 1];
        header = payload_at(before, prefix);
    }
    size_t length = header + (header > 0 && op & ADVANCE ? 0 : size * times);
    if (length > TS_MAX_FRAME)
        length = TS_MAX_FRAME;
    struct frame frame = {malloc(length ? length : 1), length};
    MUST(frame.data != NULL);
    if (header > 0) {
        memcpy(frame.data, before->data, header);
        uint8_t *tcp = frame.data + prefix + (frame.data[prefix] & 0xFu) * 4;
        ts_put32(tcp + 4, ts_get32(tcp + 4) + (uint32_t)(before->length - header));
        if (op & ADVANCE) {
            uint8_t step[4] = {0, 0, 0, 0};
            memcpy(step + 4 - (size < 4 ? size : 4), data, size < 4 ? size : 4);
            ts_put32(tcp + 8, ts_get32(tcp + 8) + ts_get32(step));
        }
        tcp[13] ^= (op & FLIP_PSH ? TS_PSH : 0) | (op & FLIP_FIN ? TS_FIN : 0);
    }
    for (size_t i = header; i < length; i++)
        frame.data[i] = data[(i - header) % size];
    if (op & FIX_LENGTH && length >= prefix + 4)
        ts_put16(frame.data + prefix + 2, (uint32_t)(length - prefix < TS_MAX_PACKET ? length - prefix : TS_MAX_PACKET));
    if (op & FIX_CHECKSUMS)
        fix_checksums(&frame, prefix);
    return frame;
}

static struct ts_reader *new_reader(void)
{
    struct ts_reader *reader = calloc(1, sizeof *reader);
    MUST(reader != NULL);
    reader->slots = SLOTS;
    reader->buffer = calloc(SLOTS, TS_SLOT);
    reader->records = calloc(SLOTS, sizeof *reader->records);
    reader->runs = calloc(SLOTS, sizeof *reader->runs);
    MUST(reader->buffer != NULL && reader->records != NULL && reader->runs != NULL);
    return reader;
}

/* Adds a frame while nothing of its slot beyond it may be touched. */
static void add(struct ts_reader *reader, const uint8_t *data, size_t length)
{
    uint8_t *slot = reader->buffer + (size_t)reader->count * TS_SLOT;
    ASAN_POISON_MEMORY_REGION(slot + length, TS_SLOT - length);
    ts_reader_add(reader, data, length);
    ASAN_UNPOISON_MEMORY_REGION(slot, TS_SLOT);
}

static void check_records(const struct ts_reader *reader, size_t frames)
{
    MUST(reader->count + reader->checksum_errors + reader->header_errors + reader->ignored <= frames);
    for (uint32_t i = 0; i < reader->count; i++) {
        const struct ts_record *record = &reader->records[i];
        MUST(record->offset >= i * TS_SLOT && (size_t)record->offset + record->length <= (i + 1) * (size_t)TS_SLOT);
        if (record->present == TS_IS_PACKET)
            continue;
        MUST(!(record->present & TS_IS_PACKET) && record->sack_count <= 4 && record->options_length <= TS_MAX_OPTIONS);
        MUST(record->length <= TS_MAX_RUN && record->packets >= 1);
        MUST(record->gso_size == 0 || (record->gso_size < record->length && record->packets > 1));
        MUST(record->gso_size == 0 || record->packets == (record->length + record->gso_size - 1) / record->gso_size);
        MUST(record->flags & TS_ACK || record->ack == 0);
        if (record->packets > 1 && record->length == 0)
            MUST(reader->coalesce_acks && record->flags == TS_ACK && !(record->present & ~TS_HAS_TIMESTAMP));
    }
}

/* Encodes a record, parses the packets, and checks that they say the same. */
static void round_trip(const struct ts_record *received, const uint8_t *payload, struct ts_reader *second)
{
    static uint8_t out[4 * TS_MAX_FRAME];
    struct ts_record record = *received;
    if (record.present & TS_HAS_OPTIONS) /* all octets of the header; sent, they stand beside the others */
        record.present = TS_HAS_OPTIONS;
    int64_t used = ts_encode(&record, payload, record.length, out, sizeof out);
    if (used < 0)
        return;
    ts_reader_begin(second);
    size_t at = 0;
    uint32_t packets = 0;
    uint32_t seq = record.seq;
    size_t sum = 0;
    while (at < (size_t)used) {
        size_t total = ts_get16(out + at + 2);
        struct ts_record again;
        uint32_t tcp;
        MUST(total >= 40 && at + total <= (size_t)used);
        MUST(ts_parse(out + at, total, true, &again, &tcp) == TS_SEGMENT);
        MUST(memcmp(again.flow, record.flow, 12) == 0 && again.seq == seq && again.window == record.window && again.tos == record.tos);
        MUST(memcmp(out + at + again.offset, payload + sum, again.length) == 0);
        if (!(record.present & TS_HAS_OPTIONS)) {
            MUST((again.present | TS_HAS_SACK) == (record.present | TS_HAS_SACK) && again.sack_count <= record.sack_count);
            MUST(again.ts_val == record.ts_val && again.ts_ecr == record.ts_ecr && again.mss == record.mss && again.wscale == record.wscale);
            MUST(memcmp(again.sack, record.sack, 8u * again.sack_count) == 0);
        }
        seq += again.length;
        sum += again.length;
        at += total;
        packets++;
        if (second->count < SLOTS)
            add(second, out + at - total, total);
    }
    MUST(sum == record.length);
    /* what was one run comes back as one, but for the marks that end or forbid a run */
    if (packets > 1 && packets <= SLOTS && record.flags == TS_ACK && !(record.present & TS_HAS_OPTIONS) && second->coalesce)
        MUST(second->count == 1 && second->records[0].length == record.length && second->records[0].packets == packets &&
             memcmp(second->buffer + second->records[0].offset, payload, record.length) == 0);
}

/* Writes the record to nowhere, as super-segments and cut, from one view and from several, of up to four times the payload. */
static void write_record(const struct ts_record *record, const uint8_t *payload, struct ts_writer *writer)
{
    for (unsigned mode = 0; mode < 6; mode++) {
        writer->vnet = mode % 3 > 0;
        writer->tso = mode % 3 > 1;
        size_t third = record->length / 3;
        for (unsigned i = 0; mode > 2 && i < 3; i++)
            ts_writer_push(writer, payload, record->length);
        ts_writer_push(writer, payload, third);
        ts_writer_push(writer, payload + third, third);
        int result = ts_writer_send(writer, record, payload + 2 * third, record->length - 2 * third);
        MUST((result == 1 || result == -EMSGSIZE) && writer->count == 0 && writer->lost == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ts_reader *first, *second;
    static struct ts_writer *writer;
    if (first == NULL) {
        first = new_reader();
        second = new_reader();
        writer = calloc(1, sizeof *writer);
        MUST(writer != NULL);
        writer->fd = open("/dev/null", O_WRONLY);
        MUST(writer->fd >= 0);
    }
    if (size == 0)
        return 0;
    first->vnet = data[0] & 1;
    first->coalesce = second->coalesce = data[0] & 2;
    first->coalesce_acks = data[0] & 4;
    size_t prefix = first->vnet ? TS_VNET : 0;
    data++;
    size--;

    struct frame frames[SLOTS];
    size_t count = 0;
    while (size >= 3 && count < SLOTS) {
        unsigned op = data[0];
        size_t length = data[1] | (size_t)data[2] << 8;
        data += 3;
        size -= 3;
        if (length > size)
            length = size;
        frames[count] = make_frame(op, data, length, frames, count, prefix);
        count++;
        data += length;
        size -= length;
    }

    ts_reader_begin(first);
    for (size_t i = 0; i < count; i++) {
        struct ts_record record;
        uint32_t tcp;
        if (frames[i].length >= prefix) {
            /* a copy without the prefix: allocated to the octet at both ends */
            size_t length = frames[i].length - prefix;
            uint8_t *exact = malloc(length ? length : 1);
            MUST(exact != NULL);
            memcpy(exact, frames[i].data + prefix, length);
            bool valid = ts_parse(exact, length, true, &record, &tcp) == TS_SEGMENT;
            MUST(ts_parse_datagram(exact, length, &record) == valid);
            free(exact);
        }
        add(first, frames[i].data, frames[i].length);
    }
    check_records(first, count);
    for (uint32_t i = 0; i < first->count; i++) {
        const struct ts_record *record = &first->records[i];
        if (record->present == TS_IS_PACKET)
            continue;
        round_trip(record, first->buffer + record->offset, second);
        write_record(record, first->buffer + record->offset, writer);
    }
    for (size_t i = 0; i < count; i++)
        free(frames[i].data);
    return 0;
}
