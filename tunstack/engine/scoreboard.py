"""The scoreboard: what was sent and not yet acknowledged, piece by piece, and what became of each piece.

RFC 6675 2 to 4 (with octets where it has segments), RFC 2018 5, RFC 2883. Remembers what it is told: the peer's ACKs and SACK
blocks, and what recovery.py takes for lost. Knows no clock and decides nothing. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunstack.seq import HALF, MASK, seq_ge, seq_gt, seq_lt

if TYPE_CHECKING:
    from tunstack.engine.rate import Snapshot

# Marks of a flight.
SACKED = 1  # the peer holds it
LOST = 2  # taken for lost; in the pipe again once it is RESENT
RESENT = 4  # its newest transmission is a retransmission, thought to be in the network
EVER_RESENT = 8  # sent more than once (Karn)


class Flight:
    """Octets sent in one go and not yet acknowledged: [seq, end) of sequence space."""

    __slots__ = ("end", "fin", "marks", "rate", "segments", "sent_at", "seq")

    def __init__(self, seq: int, end: int, sent_at: int, fin: bool) -> None:
        self.seq = seq
        self.end = end
        self.sent_at = sent_at  # last transmission
        self.fin = fin  # its last sequence number is our FIN
        self.marks = 0
        self.segments = 0  # how many it counts for once it is SACKED
        self.rate: Snapshot | None = None  # where the delivery rate stood when it last left (rate.py)

    @property
    def is_waiting(self) -> bool:
        """Whether it is to be sent again."""
        return self.marks & (LOST | RESENT) == LOST


class Heard:
    """What one ACK told: filled by the scoreboard, read by recovery. Points in time are 0 where there is none."""

    __slots__ = (
        "acked",
        "delivered",
        "dsack_end",
        "dsacked",
        "has_original",
        "has_resent",
        "is_probe_dsacked",
        "min_rtt",
        "newest",
        "newest_end",
        "newest_rate",
        "now",
        "oldest_acked_at",
        "oldest_sacked_at",
        "prior_highest",
        "prior_una",
        "reordered",
        "rtt",
        "sacked",
        "youngest_at",
    )

    def __init__(self, prior_una: int, prior_highest: int | None, min_rtt: int, now: int) -> None:
        self.now = now
        self.min_rtt = min_rtt  # least round-trip time so far
        self.prior_una = prior_una  # SND.UNA before it
        self.prior_highest = prior_highest  # behind the highest octet SACKed before it, None: none was
        self.acked = 0  # octets by which SND.UNA moved
        self.delivered = 0  # octets acknowledged or SACKed for the first time
        self.sacked = False  # something was SACKed for the first time
        self.dsacked = 0  # octets that it says arrived twice
        self.dsack_end = 0  # the end of those
        self.is_probe_dsacked = False  # they are the tail loss probe that is out
        self.has_original = False  # delivered data that was sent once, and before recovery began (RFC 5682 3.1 step 3)
        self.has_resent = False  # acknowledged data that was sent more than once (Karn)
        self.oldest_acked_at = 0  # when the oldest acknowledged data left, of that which was sent once
        self.oldest_sacked_at = 0  # the same of the data SACKed
        self.youngest_at = 0  # when the youngest of both left
        # For RACK (RFC 8985 6.2 step 2), of all that was delivered but what a retransmission cannot have brought yet:
        self.newest = 0  # when the newest transmission left
        self.newest_end = 0  # and its end
        self.newest_rate: Snapshot | None = None  # and what it remembers of the delivery rate
        self.rtt = 0  # the round-trip time of the last
        self.reordered: int | None = None  # lowest sequence number of data sent once that arrived after later data


class Scoreboard:
    """The flights of one connection. Invariants: they cover [snd_una, snd_nxt) in order without a gap; none is SACKED and LOST;
    `sacked_out`, `lost_out` and `retrans_out` are the sums of their octets (`sacked_out` an estimate where the peer has no SACK).
    """

    __slots__ = ("flights", "highest_sacked", "lost", "lost_ever", "lost_out", "retrans_out", "sacked_out", "sacked_segments")

    def __init__(self) -> None:
        self.flights: list[Flight] = []
        self.sacked_out = 0  # octets that left the network: SACKed or, without SACK, as duplicate ACKs say
        self.sacked_segments = 0  # the same in segments
        self.lost_out = 0  # octets that wait to be sent again
        self.lost = 0  # octets taken for lost and not acknowledged since, also those that were sent again
        self.lost_ever = 0  # octets that were ever taken for lost
        self.retrans_out = 0  # octets of retransmissions in the network
        self.highest_sacked = 0  # behind the highest octet SACKed; valid while there is one

    @property
    def is_reneged(self) -> bool:
        """Whether the peer acknowledges up to what it had SACKed: it dropped that, as it may (RFC 2018 8)."""
        return bool(self.flights) and bool(self.flights[0].marks & SACKED)

    # What ACKs bring.

    def acknowledge(self, ack: int) -> tuple[int, int, bool]:  # hot
        """Take the flights before `ack` off a scoreboard without marks. Return when the oldest and youngest left, and if our FIN was in."""
        flights = self.flights
        flight = flights[0]
        oldest_at = flight.sent_at
        count = 0
        for flight in flights:
            youngest_at = flight.sent_at
            if ((ack - flight.end) & MASK) >= HALF:  # seq_gt(flight.end, ack): covered in part
                flight.seq = ack
                del flights[:count]
                return oldest_at, youngest_at, False
            count += 1
            if flight.end == ack:
                break
        del flights[:count]
        return oldest_at, youngest_at, flight.fin

    def newest_before(self, ack: int) -> Flight:
        """Return the flight whose end, or a part of it, `ack` acknowledges (snd_una < ack)."""
        for flight in self.flights:
            if ((flight.end - ack) & MASK) < HALF:  # seq_ge(flight.end, ack)
                return flight
        raise AssertionError("the flights end before what was sent")

    def acknowledge_marked(self, ack: int, recover: int, heard: Heard) -> bool:
        """Take the flights before `ack` off. Return whether our FIN was in."""
        flights = self.flights
        highest = heard.prior_highest
        fin = False
        count = 0
        for flight in flights:
            if seq_ge(flight.seq, ack):
                break
            if seq_gt(flight.end, ack):
                self._cut(count, ack)
            count += 1
            fin = flight.fin
            marks = flight.marks
            if marks & SACKED:
                self._forget_sacked(flight)
                if marks & EVER_RESENT:
                    heard.has_resent = True
                continue
            self._deliver(flight, recover, heard)
            if not marks & EVER_RESENT:
                heard.oldest_acked_at = heard.oldest_acked_at or flight.sent_at
                if highest is not None and heard.reordered is None and seq_lt(flight.seq, highest):
                    heard.reordered = flight.seq
            else:
                heard.has_resent = True
        del flights[:count]
        return fin

    def sack(self, blocks: Sequence[tuple[int, int]], una: int, recover: int, mss: int, heard: Heard) -> None:
        """Mark what the blocks cover (RFC 6675 4, Update). They lie within [una, snd_nxt], in order."""
        flights = self.flights
        for left, right in blocks:
            first = (left - una) & MASK
            last = (right - una) & MASK
            index = max(bisect_right(flights, first, key=lambda flight: (flight.seq - una) & MASK) - 1, 0)
            while index < len(flights):
                flight = flights[index]
                begin = (flight.seq - una) & MASK
                if begin >= last:
                    break
                if not flight.marks & SACKED:
                    if begin < first:
                        if (flight.end - una) & MASK <= first:
                            index += 1
                            continue
                        self._cut(index, left)
                        index += 1
                        flight = flights[index]
                    if (flight.end - una) & MASK > last:
                        self._cut(index, right)
                    if not flight.marks & EVER_RESENT:
                        heard.oldest_sacked_at = heard.oldest_sacked_at or flight.sent_at
                        if self.sacked_segments and seq_lt(flight.seq, self.highest_sacked):
                            low = heard.reordered
                            if low is None or seq_lt(flight.seq, low):
                                heard.reordered = flight.seq
                    heard.sacked = True
                    self._deliver(flight, recover, heard)
                    self._mark_sacked(flight, mss)
                    index = self._merge(index)
                index += 1

    def _deliver(self, flight: Flight, recover: int, heard: Heard) -> None:
        """A flight was acknowledged or SACKed for the first time."""
        size = (flight.end - flight.seq) & MASK
        marks = flight.marks
        heard.delivered += size
        if marks & RESENT:
            self.retrans_out -= size
        elif marks & LOST:
            self.lost_out -= size
        if marks & LOST:
            self.lost -= size
        if not marks & EVER_RESENT:
            heard.youngest_at = max(heard.youngest_at, flight.sent_at)
            if not seq_gt(flight.end, recover):
                heard.has_original = True
        rtt = heard.now - flight.sent_at
        if not marks & EVER_RESENT or rtt >= heard.min_rtt:  # so soon rather the original came than the retransmission
            heard.rtt = rtt
            if flight.sent_at > heard.newest or (flight.sent_at == heard.newest and seq_gt(flight.end, heard.newest_end)):
                heard.newest = flight.sent_at
                heard.newest_end = flight.end
                heard.newest_rate = flight.rate
        flight.marks = marks & EVER_RESENT

    def _mark_sacked(self, flight: Flight, mss: int) -> None:
        size = (flight.end - flight.seq) & MASK
        flight.marks |= SACKED
        flight.segments = -(-size // mss)
        if not self.sacked_segments or seq_gt(flight.end, self.highest_sacked):
            self.highest_sacked = flight.end
        self.sacked_out += size
        self.sacked_segments += flight.segments

    def _forget_sacked(self, flight: Flight) -> None:
        self.sacked_out -= (flight.end - flight.seq) & MASK
        self.sacked_segments -= flight.segments
        flight.segments = 0

    def _merge(self, index: int) -> int:
        """Join a SACKED flight with SACKED neighbours, so that a long run is one step to walk over; return its index."""
        flights = self.flights
        flight = flights[index]
        if index + 1 < len(flights) and flights[index + 1].marks & SACKED:
            self._absorb(flight, flights[index + 1])
            del flights[index + 1]
        if index and flights[index - 1].marks & SACKED:
            self._absorb(flights[index - 1], flight)
            del flights[index]
            return index - 1
        return index

    @staticmethod
    def _absorb(flight: Flight, following: Flight) -> None:
        flight.end = following.end
        flight.fin = following.fin
        flight.marks |= following.marks
        flight.segments += following.segments
        flight.sent_at = max(flight.sent_at, following.sent_at)

    # Peers without SACK (RFC 6582): what duplicate ACKs say.

    def add_duplicate_ack(self, mss: int) -> bool:
        """A segment left the network. Return whether more did than can have: at least one hole stays (then it was reordering)."""
        self.sacked_segments += 1
        return self._limit_sacked(mss)

    def take_duplicate_acks(self, acked: int, mss: int) -> bool:
        """A partial ACK of `acked` octets: it filled one hole, the rest was counted as SACKed before. As `add_duplicate_ack`."""
        self.sacked_segments -= min(max(-(-acked // mss) - 1, 0), self.sacked_segments)
        return self._limit_sacked(mss)

    def _limit_sacked(self, mss: int) -> bool:
        """Bring the estimate within what is outstanding: segments, since a small one or a FIN makes a duplicate ACK like any other."""
        segments = holes = 0
        for flight in self.flights:
            count = -(-(((flight.end - flight.seq) & MASK) - flight.fin) // mss) or 1
            segments += count
            if flight.marks & LOST:
                holes += count
        limit = max(segments - (holes or 1), 0)
        is_exceeded = self.sacked_segments > limit
        if is_exceeded:
            self.sacked_segments = limit
        room = (self.flights[-1].end - self.flights[0].seq) & MASK if limit else 0
        self.sacked_out = min(self.sacked_segments * mss, max(room - max(self.lost, mss), self.sacked_segments))
        return is_exceeded

    def clear_duplicate_acks(self) -> None:
        """Nothing is counted as SACKed any more."""
        self.sacked_out = 0
        self.sacked_segments = 0

    # Losses.

    def mark_lost(self, flight: Flight) -> None:
        """Take a flight, or its retransmission, for lost: it leaves the pipe and waits to be sent again."""
        marks = flight.marks
        if marks & SACKED or marks & (LOST | RESENT) == LOST:
            return
        size = (flight.end - flight.seq) & MASK
        if marks & RESENT:
            self.retrans_out -= size
        if not marks & LOST:
            self.lost += size
        self.lost_out += size
        self.lost_ever += size
        flight.marks = marks & ~RESENT | LOST

    def mark_head_lost(self, mss: int) -> None:
        """Take the first segment in flight for lost, if nothing is known of it (NewReno knows of no other)."""
        flight = self.flights[0]
        if not flight.marks & LOST:
            self.split(0, mss)
            self.mark_lost(flight)
            # With the FIN it is an octet longer than a segment: what duplicate ACKs stood for cannot be more than the rest.
            rest = ((self.flights[-1].end - flight.seq) & MASK) - self.lost_out
            self.sacked_out = min(self.sacked_out, rest)

    def mark_all_lost(self) -> None:
        """Take all that is not SACKed for lost."""
        for flight in self.flights:
            self.mark_lost(flight)

    def forget_sacks(self) -> None:
        """The peer dropped what it had SACKed, which it may (RFC 2018 8)."""
        for flight in self.flights:
            if flight.marks & SACKED:
                flight.marks &= ~SACKED
                self._forget_sacked(flight)

    def forget_losses(self) -> None:
        """Nothing was lost after all."""
        for flight in self.flights:
            flight.marks &= ~LOST
        self.lost = self.lost_out = 0

    def next_lost(self) -> int | None:
        """Return the index of the first flight that waits to be sent again."""
        if self.lost_out:
            for index, flight in enumerate(self.flights):
                if flight.is_waiting:
                    return index
        return None

    def resend(self, flight: Flight, now: int) -> None:
        """Record that a flight leaves again."""
        size = (flight.end - flight.seq) & MASK
        if flight.is_waiting:
            self.lost_out -= size
        if not flight.marks & RESENT:
            self.retrans_out += size
        flight.marks |= RESENT | EVER_RESENT
        flight.sent_at = now

    # Cutting.

    def split(self, index: int, length: int) -> None:
        """Cut a flight so that it holds at most `length` octets of data; what follows becomes a flight of its own."""
        flight = self.flights[index]
        if ((flight.end - flight.seq) & MASK) - flight.fin > length:
            self._cut(index, (flight.seq + length) & MASK)

    def _cut(self, index: int, seq: int) -> None:
        """Cut a flight in two at a sequence number within."""
        flight = self.flights[index]
        rest = Flight(seq, flight.end, flight.sent_at, flight.fin)
        rest.marks = flight.marks
        rest.rate = flight.rate
        if flight.segments:  # SACKED: a run of segments
            rest.segments = flight.segments >> 1
            flight.segments -= rest.segments
        flight.end = seq
        flight.fin = False
        self.flights.insert(index + 1, rest)
