"""Delivery rate: how fast the network hands over what we send, one sample an ACK.

draft-cheng-iccrg-delivery-rate-estimation-02, as in Linux's tcp_rate, counted in octets. Exists only for algorithms that are
`rate_based`. A sample is octets delivered between two moments divided by the longer of two times: that in which they were sent and that
in which they were acknowledged; either alone would believe a burst. Knows no clock and no I/O. Times are int microseconds, lengths octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunstack.congestion import RateSample

if TYPE_CHECKING:
    from tunstack.engine.scoreboard import Flight, Scoreboard

# What a flight remembers of its last transmission: `delivered`, `delivered_at`, `first_sent_at` as they then stood, and whether the
# application held the sender back. Immutable, so that the parts of a flight that is cut share it.
Snapshot = tuple[int, int, int, bool]


class DeliveryRate:
    """The estimator of one connection.

    `on_sent` for each transmission, first or repeated. For each ACK: `on_ack` before anything changes, `take` when all is done. Octets
    count once, when they are first acknowledged or SACKed.
    """

    __slots__ = ("delivered", "delivered_at", "first_sent_at", "limited_until", "prior_lost", "sample")

    def __init__(self, now: int) -> None:
        self.delivered = 0  # octets delivered
        self.delivered_at = now  # when the last of them were acknowledged
        self.first_sent_at = now  # when the newest octets of those delivered were sent: a sending interval begins there
        self.limited_until = 0  # the application held us back until more than this is delivered; 0: it does not
        self.prior_lost = 0  # octets ever lost, before this ACK
        self.sample = RateSample()

    def on_sent(self, flight: Flight, is_alone: bool, now: int) -> None:
        """A flight leaves, for the first time or again; `is_alone`: nothing was outstanding before."""
        if is_alone:  # the network was empty: time before this says nothing of it
            self.first_sent_at = self.delivered_at = now
        flight.rate = (self.delivered, self.delivered_at, self.first_sent_at, self.limited_until > 0)

    def on_ack(self, pipe: int, board: Scoreboard) -> None:
        """An ACK begins to be handled, with `pipe` octets in the network."""
        self.sample.prior_flight = pipe
        self.prior_lost = board.lost_ever

    def limit(self, pipe: int) -> None:
        """The sender has nothing to send though it might: samples of what leaves may be too low, until the `pipe` as it is now is empty."""
        self.limited_until = self.delivered + pipe or 1

    def take(self, octets: int, newest: Snapshot | None, sent_at: int, min_rtt: int, mss: int, now: int) -> None:
        """Complete the sample: the ACK delivered `octets`; of those the newest left at `sent_at` and remember `newest`.

        The caller sets what it alone knows: `rtt`, `flight`, `lost`, `is_cwnd_limited`, `is_recovering`.
        """
        sample = self.sample
        self.delivered += octets
        if octets:
            self.delivered_at = now
        if self.limited_until and self.delivered > self.limited_until:
            self.limited_until = 0
        sample.now = now
        sample.acked = octets
        sample.delivered = self.delivered
        sample.prior_delivered = sample.interval = sample.rate = 0
        sample.is_app_limited = sample.is_ack_delayed = False
        if newest is None:
            return
        prior_delivered, prior_at, first_sent_at, sample.is_app_limited = newest
        sample.prior_delivered = prior_delivered
        delivered = self.delivered - prior_delivered
        # A lone packet that was less than full: the peer most likely waited for another before it acknowledged (as Linux guesses).
        sample.is_ack_delayed = octets < mss and delivered == octets
        interval = max(sent_at - first_sent_at, now - prior_at)
        # Less than the path's least round-trip time cannot be: a spurious retransmission was taken for its original (draft 3.4).
        # And where duplicate ACKs without SACK had told of all octets before, there is nothing to measure.
        if delivered and interval > 0 and interval >= min_rtt:
            sample.interval = interval
            sample.rate = delivered * 1_000_000 // interval
        self.first_sent_at = sent_at
