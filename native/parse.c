/* Checking and parsing of IPv4 and TCP headers. Twin: tunstack/wire/tcp.py.
 *
 * RFC 791 3.1, RFC 9293 3.1, RFC 7323, RFC 2018. Nothing beyond the length that was given is read, whatever the headers claim.
 */
#include "tunstack.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_MSS = 2, OPTION_WSCALE = 3, OPTION_SACK_OK = 4, OPTION_SACK = 5, OPTION_TIMESTAMP = 8 };
enum { PROTOCOL_TCP = 6 };

/* NOP, NOP, timestamp, 10: what nearly every segment carries, RFC 7323 appendix A */
static const uint8_t ALIGNED_TIMESTAMP[4] = {OPTION_NOP, OPTION_NOP, OPTION_TIMESTAMP, 10};

static void take_timestamp(const uint8_t *value, struct ts_record *record)
{
    record->ts_val = ts_get32(value);
    record->ts_ecr = ts_get32(value + 4);
    record->present |= TS_HAS_TIMESTAMP;
}

/* Takes one option of 2 <= length octets, all of them in bounds. A wrong length for its kind: stepped over. */
static void take_option(const uint8_t *option, size_t length, struct ts_record *record)
{
    const uint8_t *value = option + 2;
    switch (option[0]) {
    case OPTION_MSS:
        if (length == 4 && ts_get16(value)) { /* as Linux has it, an MSS of 0 is none */
            record->mss = ts_get16(value);
            record->present |= TS_HAS_MSS;
        }
        break;
    case OPTION_WSCALE:
        if (length == 3) {
            record->wscale = value[0];
            record->present |= TS_HAS_WSCALE;
        }
        break;
    case OPTION_SACK_OK:
        if (length == 2)
            record->present |= TS_HAS_SACK_OK;
        break;
    case OPTION_SACK: /* at most 38 octets are left for it: 4 blocks */
        if (length >= 10 && (length & 7) == 2) {
            record->sack_count = (uint8_t)((length - 2) / 8);
            for (size_t i = 0; i < 2u * record->sack_count; i++)
                record->sack[i] = ts_get32(value + 4 * i);
            record->present |= TS_HAS_SACK;
        }
        break;
    case OPTION_TIMESTAMP:
        if (length == 10)
            take_timestamp(value, record);
        break;
    default:
        record->present |= TS_HAS_OPTIONS;
    }
}

/* Parses options[0..length), length <= 40; of a repeated option the last one counts. As Linux has it (tcp_parse_options): at an
 * option shorter than 2 octets or longer than what is left the rest is not looked at, and the segment is kept. */
static void parse_options(const uint8_t *options, size_t length, struct ts_record *record)
{
    if (length == 12 && memcmp(options, ALIGNED_TIMESTAMP, 4) == 0) {
        take_timestamp(options + 4, record);
        return;
    }
    for (size_t i = 0; i < length && options[i] != OPTION_END;) {
        if (options[i] == OPTION_NOP) {
            i++;
            continue;
        }
        size_t size = i + 1 < length ? options[i + 1] : 0;
        if (size < 2 || size > length - i)
            break;
        take_option(options + i, size, record);
        i += size;
    }
    if (record->present & TS_HAS_OPTIONS) {
        record->options_length = (uint8_t)length;
        memcpy(record->options, options, length);
    }
}

enum ts_verdict ts_parse(const uint8_t *packet, size_t length, bool verify, struct ts_record *record, uint32_t *tcp)
{
    if (length > 0 && packet[0] >> 4 == 6)
        return TS_IGNORED;
    if (length < TS_IP_HEADER || packet[0] >> 4 != 4)
        return TS_HEADER_ERROR;
    size_t ip_length = (packet[0] & 0xFu) * 4;
    size_t total = ts_get16(packet + 2);
    if (ip_length < TS_IP_HEADER || ip_length > total || total > length || ts_checksum(packet, ip_length, 0) != 0)
        return TS_HEADER_ERROR;

    memset(record, 0, offsetof(struct ts_record, sack));
    if ((ts_get16(packet + 6) & 0x3FFF) != 0 || packet[9] != PROTOCOL_TCP) { /* more fragments, or an offset */
        record->length = (uint32_t)total;
        record->present = TS_IS_PACKET;
        *tcp = 0;
        return TS_PACKET;
    }

    const uint8_t *header = packet + ip_length;
    size_t tcp_total = total - ip_length;
    if (tcp_total < TS_TCP_HEADER)
        return TS_HEADER_ERROR;
    size_t header_length = (header[12] >> 4) * 4u;
    if (header_length < TS_TCP_HEADER || header_length > tcp_total)
        return TS_HEADER_ERROR;
    if (verify) {
        uint32_t pseudo = ts_word_sum(packet + 12, 8) + PROTOCOL_TCP + (uint32_t)tcp_total;
        if (ts_checksum(header, tcp_total, pseudo) != 0)
            return TS_CHECKSUM_ERROR;
    }

    memcpy(record->flow, packet + 12, 8);
    memcpy(record->flow + 8, header, 4);
    record->flags = (uint16_t)((header[12] & 1) << 8 | header[13]);
    record->seq = ts_get32(header + 4);
    record->ack = record->flags & TS_ACK ? ts_get32(header + 8) : 0;
    record->window = ts_get16(header + 14);
    record->urgent = ts_get16(header + 18);
    record->ident = ts_get16(packet + 4);
    record->tos = packet[1];
    record->ttl = packet[8];
    record->packets = 1;
    record->offset = (uint32_t)(ip_length + header_length);
    record->length = (uint32_t)(tcp_total - header_length);
    *tcp = (uint32_t)ip_length;
    parse_options(header + TS_TCP_HEADER, header_length - TS_TCP_HEADER, record);
    return TS_SEGMENT;
}

bool ts_parse_datagram(const uint8_t *packet, size_t length, void *record)
{
    struct ts_record parsed = {.seq = 0}; /* all of it is copied, so nothing of it may be undefined */
    uint32_t tcp;
    if (ts_parse(packet, length, true, &parsed, &tcp) != TS_SEGMENT)
        return false;
    memcpy(record, &parsed, sizeof parsed);
    return true;
}
