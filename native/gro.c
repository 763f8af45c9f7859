/* Receive coalescing, what Linux calls GRO. Twin: tunstack/wire/gro.py.
 *
 * Segments of a flow that follow each other and differ in nothing but sequence number and payload become one. So do bare ACKs, which
 * Linux does not merge: of those that advance the last says all.
 */
#include "tunstack.h"

/* A run grows while it is whole packets of a bare ACK with data, and has no option that speaks for one packet only (signatures). */
static bool may_grow(const struct ts_run *run, const struct ts_record *record)
{
    return record->flags == TS_ACK && !(record->present & (TS_HAS_OPTIONS | TS_IS_PACKET)) && run->unit > 0 &&
           record->length % run->unit == 0;
}

void ts_run_start(struct ts_run *run, const struct ts_record *record, uint32_t options, uint16_t options_length)
{
    run->options = options;
    run->options_length = options_length;
    run->unit = record->gso_size ? record->gso_size : (uint16_t)record->length; /* a segment's payload is below 2^16 */
    run->is_open = may_grow(run, record);
    run->advances = false;
}

bool ts_run_absorb(struct ts_run *run, struct ts_record *head, uint8_t *buffer, const struct ts_run *next_run,
                   const struct ts_record *next)
{
    if (!run->is_open || next->length == 0 || (next->flags & ~(TS_PSH | TS_FIN)) != TS_ACK)
        return false;
    if (next->gso_size ? next->gso_size != run->unit : next->length > run->unit)
        return false;
    if (next->seq != head->seq + head->length || next->ack != head->ack || next->window != head->window || next->tos != head->tos ||
        next->urgent != head->urgent || head->length + next->length > TS_MAX_RUN)
        return false;
    if (next_run->options_length != run->options_length ||
        memcmp(buffer + next_run->options, buffer + run->options, run->options_length) != 0)
        return false;
    memcpy(buffer + head->offset + head->length, buffer + next->offset, next->length);
    head->length += next->length;
    head->packets = (uint16_t)(head->packets + next->packets); /* each has an octet at least, and TS_MAX_RUN fits 16 bits */
    head->gso_size = run->unit;
    head->flags |= next->flags;
    run->is_open = may_grow(run, head);
    return true;
}

bool ts_ack_advances(const struct ts_record *head, const struct ts_record *next)
{
    return head->flags & next->flags & TS_ACK && next->ack - head->ack - 1 < 0x7FFFFFFF;
}

/* A bare ACK that may stand for those before it: it says nothing but numbers. */
static bool is_bare_ack(const struct ts_record *record)
{
    return record->flags == TS_ACK && record->length == 0 && !(record->present & ~TS_HAS_TIMESTAMP);
}

bool ts_ack_absorb(const struct ts_run *run, struct ts_record *head, const struct ts_record *next)
{
    if (!run->advances || !is_bare_ack(head) || !is_bare_ack(next) || !ts_ack_advances(head, next))
        return false;
    /* a timestamp that went back is dropped by PAWS (RFC 7323 5), and what it would have replaced is not */
    if (next->seq != head->seq || next->tos != head->tos || next->urgent != head->urgent || next->present != head->present ||
        next->ts_val - head->ts_val > 0x7FFFFFFF)
        return false;
    head->ack = next->ack;
    head->window = next->window;
    head->ts_val = next->ts_val;
    head->ts_ecr = next->ts_ecr;
    head->ident = next->ident;
    head->ttl = next->ttl;
    head->packets = (uint16_t)(head->packets + next->packets); /* one each, and at most TS_COUNT */
    return true;
}
