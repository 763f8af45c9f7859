/* The Internet checksum, RFC 1071. Twin: tunstack/wire/checksum.py. */
#include "tunstack.h"

uint32_t ts_fold(uint64_t sum)
{
    sum = (sum & 0xFFFFFFFF) + (sum >> 32);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint32_t)sum;
}

/* The sum in the machine's own byte order is the byte-swapped sum in network order (RFC 1071 2 B). */
static uint32_t finish(uint64_t sum, const uint8_t *rest, size_t count)
{
    if (count > 0) {
        uint32_t word = 0;
        memcpy(&word, rest, count);
        sum += word;
    }
    uint8_t octets[2];
    uint16_t folded = (uint16_t)ts_fold(sum);
    memcpy(octets, &folded, 2);
    return ts_get16(octets);
}

/* 32 bits at a time into 64: no carry is lost below 2^32 words, and the compiler makes vectors of it. */
uint32_t ts_word_sum(const uint8_t *data, size_t length)
{
    uint64_t sum = 0;
    size_t words = length / 4;
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, data + 4 * i, 4);
        sum += word;
    }
    return finish(sum, data + 4 * words, length & 3);
}

uint32_t ts_copy_sum(uint8_t *restrict out, const uint8_t *restrict data, size_t length)
{
    uint64_t sum = 0;
    size_t words = length / 4;
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, data + 4 * i, 4);
        memcpy(out + 4 * i, &word, 4);
        sum += word;
    }
    memcpy(out + 4 * words, data + 4 * words, length & 3);
    return finish(sum, data + 4 * words, length & 3);
}

uint16_t ts_checksum(const uint8_t *data, size_t length, uint64_t initial)
{
    return (uint16_t)~ts_fold((uint64_t)ts_word_sum(data, length) + ts_fold(initial));
}
