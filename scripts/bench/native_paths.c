/* Runs each hot path of the C extension many times, to have its instructions counted: native_paths PATH COUNT
 *
 * native_paths.py compiles it with the extension's sources and runs it under valgrind, which counts while `measured` runs: what is in
 * libc (copying, above all) and in the kernel is left out of the count.
 */
#include "tunstack.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLOTS = 64, MSS = 1448, RUN = 44 * MSS, OPTIONS = 12 };

static const uint8_t flow[12] = {10, 77, 0, 1, 10, 77, 0, 2, 0x9c, 0x40, 0x13, 0x89};
static uint8_t payload[RUN], frame[TS_MAX_FRAME], packets[SLOTS][TS_VNET + 1500];
static size_t frame_length, packet_length;
static struct ts_reader reader;
static struct ts_writer writer;
static struct ts_record record = {.seq = 1000, .ack = 2000, .ts_val = 3000, .ts_ecr = 4000, .flags = TS_ACK, .window = 512, .ttl = 64,
                                  .present = TS_HAS_TIMESTAMP};
static volatile uint32_t sink;

static void prepare(void)
{
    memcpy(record.flow, flow, sizeof flow);
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)(i * 7 + i / 256);
    /* a super-segment as the kernel hands it over: virtio header with a partial checksum */
    size_t header = ts_build_header(&record, RUN, frame + TS_VNET);
    memcpy(frame + TS_VNET + header, payload, RUN);
    frame[0] = 1;                              /* VIRTIO_NET_HDR_F_NEEDS_CSUM */
    frame[1] = 1;                              /* VIRTIO_NET_HDR_GSO_TCPV4 */
    frame[2] = (uint8_t)header;                /* hdr_len */
    frame[4] = MSS & 0xff, frame[5] = MSS >> 8; /* gso_size */
    frame[6] = TS_IP_HEADER, frame[8] = 16;    /* csum_start, csum_offset */
    frame_length = TS_VNET + header + RUN;
    /* packets in sequence, as an interface without offload hands them over */
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct ts_record packet = record;
        packet.seq += i * MSS;
        memset(packets[i], 0, TS_VNET);
        int64_t length = ts_encode(&packet, payload, MSS, packets[i] + TS_VNET, sizeof packets[i] - TS_VNET);
        if (length < 0)
            exit(1);
        packet_length = TS_VNET + (size_t)length;
    }
    reader.slots = SLOTS;
    reader.buffer = calloc(SLOTS, TS_SLOT);
    reader.records = calloc(SLOTS, sizeof *reader.records);
    reader.runs = calloc(SLOTS, sizeof *reader.runs);
    reader.vnet = true;
    writer.fd = open("/dev/null", O_WRONLY);
    writer.vnet = writer.tso = true;
    if (reader.buffer == NULL || reader.records == NULL || reader.runs == NULL || writer.fd < 0)
        exit(1);
}

static void add(const uint8_t *data, size_t length)
{
    if (reader.count == SLOTS)
        ts_reader_begin(&reader);
    ts_reader_add(&reader, data, length);
}

static void read_super(unsigned i) { (void)i, add(frame, frame_length); }

static void read_packet(unsigned i) { add(packets[i % SLOTS], packet_length); }

static void coalesce(unsigned i)
{
    if (i % 32 == 0)
        ts_reader_begin(&reader);
    ts_reader_add(&reader, packets[i % 32], packet_length);
}

static void parse(unsigned i)
{
    struct ts_record received;
    uint32_t tcp;
    sink = ts_parse(packets[i % SLOTS] + TS_VNET, packet_length - TS_VNET, false, &received, &tcp) + received.seq;
}

static void header(unsigned i)
{
    uint8_t out[TS_MAX_HEADER];
    record.ident = (uint16_t)i;
    sink = (uint32_t)ts_build_header(&record, MSS, out) + out[10];
}

static void checksum(unsigned i) { sink = ts_word_sum(payload + i % 16, 1024); }

static void send_super(unsigned i)
{
    (void)i;
    record.gso_size = MSS;
    sink = (uint32_t)ts_writer_send(&writer, &record, payload, RUN);
}

static void send_ack(unsigned i)
{
    (void)i;
    record.gso_size = 0;
    sink = (uint32_t)ts_writer_send(&writer, &record, NULL, 0);
}

static void segmentation(unsigned i)
{
    (void)i;
    writer.tso = false;
    record.gso_size = MSS;
    sink = (uint32_t)ts_writer_send(&writer, &record, payload, RUN);
}

static const struct {
    const char *name;
    void (*run)(unsigned);
    unsigned units; /* that one call does */
} paths[] = {
    {"read_super", read_super, 1},   {"read_packet", read_packet, 1}, {"coalesce", coalesce, 1},
    {"parse", parse, 1},             {"header", header, 1},           {"checksum", checksum, 1},
    {"send_super", send_super, 1},   {"send_ack", send_ack, 1},       {"segmentation", segmentation, RUN / MSS},
};

/* What is counted. */
__attribute__((noinline)) void measured(void (*run)(unsigned), unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        run(i);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    prepare();
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (strcmp(paths[i].name, argv[1]) == 0) {
            unsigned count = (unsigned)atoi(argv[2]);
            reader.coalesce = paths[i].run == coalesce;
            paths[i].run(0);
            measured(paths[i].run, count);
            printf("%u\n", count * paths[i].units);
            return 0;
        }
    return 2;
}
