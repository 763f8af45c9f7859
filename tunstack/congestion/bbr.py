"""BBR, version 1: sends at the rate at which the network delivers, with about two round trips' worth in flight at most.

Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14/5 (2016), and draft-cardwell-iccrg-bbr-congestion-control-00,
with what Linux's tcp_bbr added to them since: compensation for aggregated ACKs, and a PROBE_RTT that ends of itself when the application
pauses. Version 1 and not the IETF's draft (version 3), because it is what Linux runs as `bbr`: it is what people get today under this
name and what we can be measured against, while the draft still changes.

Deviates from Linux's in two things. There is no long-term bandwidth for token-bucket policers: later versions gave it up,
since losses of a fifth within a few round trips are as often a queue that overflowed. And the phase in which the gain cycle begins is not
random but derived from the microsecond at which it begins: what matters is only that flows on one bottleneck do not probe together, and
their ACKs pass the bottleneck at different times.

Windows are octets, times int microseconds, rates octets a second; gains are in 256ths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from tunstack.congestion.base import CongestionControl, RateSample

UNIT = 256
HIGH_GAIN = UNIT * 2885 // 1000 + 1  # 2/ln 2: the least that doubles the rate each round
DRAIN_GAIN = UNIT * 1000 // 2885
CWND_GAIN = 2 * UNIT  # in PROBE_BW: room for ACKs that are delayed or come together
CYCLE = (UNIT * 5 // 4, UNIT * 3 // 4, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT)  # pacing gains of PROBE_BW: probe, drain, cruise
CYCLE_PROBE = 0
BANDWIDTH_ROUNDS = len(CYCLE) + 2  # the maximum is taken over so many round trips
MIN_RTT_WINDOW = 10_000_000  # and the minimum over so much time
PROBE_RTT_TIME = 200_000  # for which the pipe is kept almost empty
FULL_PIPE_GROWTH = (5, 4)  # STARTUP is over when the bandwidth grew by less than this ...
FULL_PIPE_ROUNDS = 3  # ... in each of so many rounds
PACING_MARGIN = 99  # percent: a little less than the estimate, so that no queue grows
MIN_SEGMENTS = 4  # cwnd is at least this: enough for ACKs of every second segment, and one lost
INITIAL_SEGMENTS = 10
EXTRA_ACKED_ROUNDS = 5  # ACK aggregation: the maximum of the last five to ten rounds
EXTRA_ACKED_TIME = 100_000  # and at most what is delivered in this
SLOW_RATE = 150_000  # octets a second below which packets leave one by one
QUANTUM_MAX = 65_535 - 320  # octets of a super-segment

STARTUP = 0  # the rate doubles each round until the bandwidth grows no more
DRAIN = 1  # the queue that this made is let run dry
PROBE_BW = 2  # the steady state: around the estimate by the gain cycle
PROBE_RTT = 3  # now and then almost nothing in flight, to see the round-trip time without a queue

# Loss recovery as of the last ACK.
OPEN = 0
RECOVERY = 1
LOSS = 2


class Bbr(CongestionControl):
    """The model of the path (bandwidth, min_rtt) and what follows from it: pacing rate and window. Called once an ACK, by `on_rate`."""

    __slots__ = (
        "_before_loss",
        "_conserves",
        "_cwnd_gain",
        "_cycle_at",
        "_cycle_index",
        "_epoch_acked",
        "_epoch_at",
        "_extra_acked",
        "_extra_rounds",
        "_full_bandwidth",
        "_full_rounds",
        "_has_rtt",
        "_is_restarting",
        "_limited_from",
        "_limited_until",
        "_min_rtt_at",
        "_next_round",
        "_pacing_gain",
        "_peaks",
        "_probe_rtt_done_at",
        "_probe_rtt_round_done",
        "_recovery",
        "_round_starts",
        "is_pipe_full",
        "min_rtt",
        "mode",
        "rounds",
    )

    name = "bbr"
    rate_based = True

    def __init__(self, mss: int, cwnd: int) -> None:
        super().__init__(mss, cwnd)
        self.mode = STARTUP
        self.min_rtt = 0  # least round-trip time of the last ten seconds; 0: none yet
        self.rounds = 0  # round trips so far
        self.is_pipe_full = False  # STARTUP found the bandwidth
        self._pacing_gain = HIGH_GAIN
        self._cwnd_gain = HIGH_GAIN
        # Bandwidth.
        self._peaks: deque[tuple[int, int]] = deque()  # (round, rate), rates falling: the first is the maximum of the window
        self._next_round = 0  # the round ends when octets sent after this many were delivered
        self._round_starts = False  # with this ACK
        self._full_bandwidth = 0  # what STARTUP had reached
        self._full_rounds = 0  # rounds without growth since
        # Gain cycle.
        self._cycle_index = CYCLE_PROBE
        self._cycle_at = 0  # when this phase began
        # Round-trip time.
        self._has_rtt = False
        self._min_rtt_at = 0
        self._probe_rtt_done_at = 0  # earliest end of PROBE_RTT; 0: the pipe is not drained yet
        self._probe_rtt_round_done = False
        self._limited_from = 0  # samples of octets sent between these two counts of `delivered` are PROBE_RTT's, not the path's
        self._limited_until = -1
        self._is_restarting = False  # after a pause: the first ACK has not come
        # Loss.
        self._recovery = OPEN
        self._conserves = False  # first round of recovery: one packet out for each that left the network
        self._before_loss = 0  # cwnd before recovery or PROBE_RTT
        # ACK aggregation.
        self._extra_acked = [0, 0]  # maximum of octets acknowledged beyond what the bandwidth explains: of these rounds, of those before
        self._extra_rounds = 0  # rounds that the first of them covers
        self._epoch_at = 0  # the count of what was acknowledged and what was to be expected begins here
        self._epoch_acked = 0

    @property
    def bandwidth(self) -> int:
        """Estimated bandwidth of the bottleneck, octets a second; 0: none yet."""
        return self._peaks[0][1] if self._peaks else 0

    def details(self) -> Mapping[str, int | float]:
        return {
            "bw": self.bandwidth * 8,
            "mrtt": self.min_rtt,
            "pacing_gain": self._pacing_gain / UNIT,
            "cwnd_gain": self._cwnd_gain / UNIT,
        }

    # What the engine tells.

    def on_start(self, srtt: int, min_rtt: int, now: int) -> None:
        self.min_rtt = min_rtt
        self._min_rtt_at = self._epoch_at = self._cycle_at = now
        self._has_rtt = srtt > 0
        # Without a round-trip time one millisecond is supposed, so that the first window leaves at once.
        self.pacing_rate = self._paced(self.cwnd * 1_000_000 // (srtt or 1000), HIGH_GAIN)

    def on_restart(self, is_app_limited: bool, now: int) -> None:
        if not is_app_limited:
            return
        # The window is not lowered, as the pipe is known: what follows the pause is paced at the estimate, no faster.
        self._is_restarting = True
        self._epoch_at = now
        self._epoch_acked = 0
        if self.mode == PROBE_BW:
            self._set_pacing_rate(UNIT)
        elif self.mode == PROBE_RTT:
            self._check_probe_rtt_done(now)

    def on_rate(self, sample: RateSample) -> None:
        self._update_bandwidth(sample)
        self._update_extra_acked(sample)
        self._update_cycle(sample)
        self._check_full_pipe(sample)
        self._check_drain(sample)
        self._update_min_rtt(sample)
        self._set_gains()
        if not self._has_rtt and sample.rtt:
            self._has_rtt = True
            self.pacing_rate = self._paced(self.cwnd * 1_000_000 // sample.rtt, HIGH_GAIN)
        self._set_pacing_rate(self._pacing_gain)
        self._set_cwnd(sample)

    def on_congestion(self, flight: int, now: int) -> None:
        # Losses are no measure of the bandwidth: the window comes back when they are repaired. (ECN echoes mean nothing to version 1.)
        self._save_cwnd()

    def on_rto(self, flight: int, now: int) -> None:
        self._save_cwnd()
        self._recovery = LOSS
        self._conserves = False
        self._full_bandwidth = 0  # STARTUP may have to grow again from here
        self._round_starts = True

    def on_recovery_exit(self, flight: int, now: int) -> None:
        """The next sample says it too: the window is restored there."""

    def on_spurious(self, now: int) -> None:
        self._full_bandwidth = self._full_rounds = 0  # a pause in the ACKs looked like the end of growth
        self._restore_cwnd()

    # The model.

    def _update_bandwidth(self, sample: RateSample) -> None:
        self._round_starts = False
        if not sample.interval:
            return
        if sample.prior_delivered >= self._next_round:
            self._next_round = sample.delivered
            self.rounds += 1
            self._round_starts = True
            self._conserves = False
        rate = sample.rate
        # The application's pauses say nothing of the path, unless it was faster than we knew.
        if rate >= self.bandwidth or not self._is_limited(sample):
            peaks = self._peaks
            while peaks and peaks[-1][1] <= rate:
                peaks.pop()
            peaks.append((self.rounds, rate))
            while self.rounds - peaks[0][0] > BANDWIDTH_ROUNDS:
                peaks.popleft()

    def _is_limited(self, sample: RateSample) -> bool:
        """Whether the sample tells of the application, or of our own PROBE_RTT, and not of the path."""
        return sample.is_app_limited or self._limited_from <= sample.prior_delivered <= self._limited_until

    def _update_extra_acked(self, sample: RateSample) -> None:
        """How much more is acknowledged at times than the bandwidth explains: the window must allow for the silence before."""
        if not sample.interval or not sample.acked:
            return
        if self._round_starts:
            self._extra_rounds += 1
            if self._extra_rounds >= EXTRA_ACKED_ROUNDS:
                self._extra_rounds = 0
                self._extra_acked = [0, self._extra_acked[0]]
        expected = self.bandwidth * (sample.now - self._epoch_at) // 1_000_000
        if self._epoch_acked <= expected:
            self._epoch_at = sample.now
            self._epoch_acked = expected = 0
        self._epoch_acked += sample.acked
        extra = min(self._epoch_acked - expected, self.cwnd)
        if extra > self._extra_acked[0]:
            self._extra_acked[0] = extra

    def _update_cycle(self, sample: RateSample) -> None:
        if self.mode != PROBE_BW:
            return
        is_over = sample.now - self._cycle_at > self.min_rtt
        gain = CYCLE[self._cycle_index]
        if gain > UNIT:  # until what is in flight shows that the path was probed, or it overflows
            flight = sample.prior_flight + self._quantum()
            is_over = is_over and (sample.lost > 0 or flight >= self._inflight(gain))
        elif gain < UNIT:  # no longer than it takes to drain what probing queued
            is_over = is_over or sample.prior_flight <= self._inflight(UNIT)
        if is_over:
            self._cycle_index = (self._cycle_index + 1) % len(CYCLE)
            self._cycle_at = sample.now

    def _check_full_pipe(self, sample: RateSample) -> None:
        if self.is_pipe_full or not self._round_starts or sample.is_app_limited:
            return
        numerator, denominator = FULL_PIPE_GROWTH
        if self.bandwidth * denominator >= self._full_bandwidth * numerator:
            self._full_bandwidth = self.bandwidth
            self._full_rounds = 0
            return
        self._full_rounds += 1
        self.is_pipe_full = self._full_rounds >= FULL_PIPE_ROUNDS

    def _check_drain(self, sample: RateSample) -> None:
        if self.mode == STARTUP and self.is_pipe_full:
            self.mode = DRAIN
            self.ssthresh = self._inflight(UNIT)  # for whom it may concern: another algorithm, should it take over
        if self.mode == DRAIN and sample.flight <= self._inflight(UNIT):
            self._enter_probe_bw(sample.now)

    def _enter_probe_bw(self, now: int) -> None:
        self.mode = PROBE_BW
        # Anywhere but in the phase that drains, which would follow upon no probe.
        index = now % (len(CYCLE) - 1)
        self._cycle_index = index if index == CYCLE_PROBE else index + 1
        self._cycle_at = now

    def _update_min_rtt(self, sample: RateSample) -> None:
        now = sample.now
        is_expired = now > self._min_rtt_at + MIN_RTT_WINDOW
        rtt = sample.rtt
        if rtt and (not self.min_rtt or rtt < self.min_rtt or (is_expired and not sample.is_ack_delayed)):
            self.min_rtt = rtt
            self._min_rtt_at = now
        if is_expired and not self._is_restarting and self.mode != PROBE_RTT:
            self.mode = PROBE_RTT
            self._save_cwnd()
            self._probe_rtt_done_at = 0
            self._limited_from = sample.delivered
        if self.mode == PROBE_RTT:
            self._limited_until = sample.delivered + sample.flight
            if not self._probe_rtt_done_at:
                if sample.flight <= MIN_SEGMENTS * self.mss:
                    self._probe_rtt_done_at = now + PROBE_RTT_TIME
                    self._probe_rtt_round_done = False
                    self._next_round = sample.delivered
            else:
                if self._round_starts:
                    self._probe_rtt_round_done = True
                if self._probe_rtt_round_done:
                    self._check_probe_rtt_done(now)
        if sample.interval:
            self._is_restarting = False

    def _check_probe_rtt_done(self, now: int) -> None:
        if not self._probe_rtt_done_at or now <= self._probe_rtt_done_at:
            return
        self._min_rtt_at = now  # it holds for another ten seconds
        self._restore_cwnd()
        if self.is_pipe_full:
            self._enter_probe_bw(now)
        else:
            self.mode = STARTUP

    # What follows from it.

    def _set_gains(self) -> None:
        if self.mode == PROBE_BW:
            self._pacing_gain = CYCLE[self._cycle_index]
            self._cwnd_gain = CWND_GAIN
        elif self.mode == STARTUP:
            self._pacing_gain = self._cwnd_gain = HIGH_GAIN
        elif self.mode == DRAIN:
            self._pacing_gain = DRAIN_GAIN
            self._cwnd_gain = HIGH_GAIN  # what is in flight falls by the pace alone
        else:
            self._pacing_gain = self._cwnd_gain = UNIT

    def _paced(self, bandwidth: int, gain: int) -> int:
        return max(bandwidth * gain * PACING_MARGIN // (UNIT * 100), 1)

    def _set_pacing_rate(self, gain: int) -> None:
        rate = self._paced(self.bandwidth, gain)
        if self.is_pipe_full or rate > self.pacing_rate:  # STARTUP never slows down: its samples are still too low
            self.pacing_rate = rate

    def _quantum(self) -> int:
        """Octets that leave in one go: a millisecond's worth, whole segments."""
        segments = min(self.pacing_rate >> 10, QUANTUM_MAX) // self.mss
        return max(segments, 1 if self.pacing_rate < SLOW_RATE else 2) * self.mss

    def _bdp(self, gain: int) -> int:
        """`gain` times what the pipe holds."""
        if not self.min_rtt:
            return INITIAL_SEGMENTS * self.mss
        return -(-self.bandwidth * self.min_rtt * gain // (UNIT * 1_000_000))

    def _budget(self, flight: int) -> int:
        """Whole segments for `flight` octets, and room for the bursts that are in the making at both ends."""
        mss = self.mss
        segments = -(-(flight + 3 * self._quantum()) // mss)
        segments += segments & 1  # receivers acknowledge every second
        if self.mode == PROBE_BW and self._cycle_index == CYCLE_PROBE:
            segments += 2  # small pipes, too, are to be filled beyond their measure
        return segments * mss

    def _inflight(self, gain: int) -> int:
        """Octets in flight that go with `gain` times the bandwidth."""
        return self._budget(self._bdp(gain))

    def _set_cwnd(self, sample: RateSample) -> None:
        least = MIN_SEGMENTS * self.mss
        if sample.acked and not self._follow_recovery(sample):
            target = self._bdp(self._cwnd_gain)
            if self.is_pipe_full:
                target += min(max(self._extra_acked), self.bandwidth * EXTRA_ACKED_TIME // 1_000_000)
            target = self._budget(target)
            cwnd = self.cwnd
            if self.is_pipe_full:
                cwnd = min(cwnd + sample.acked, target)
            elif cwnd < target or sample.delivered < INITIAL_SEGMENTS * self.mss:
                cwnd += sample.acked
            self.cwnd = max(cwnd, least)
        if self.mode == PROBE_RTT:
            self.cwnd = min(self.cwnd, least)

    def _follow_recovery(self, sample: RateSample) -> bool:
        """Take losses off the window; return whether recovery alone decides on it (packet conservation)."""
        cwnd = self.cwnd
        if sample.lost:
            cwnd -= sample.lost
        before = self._recovery
        if not sample.is_recovering:
            self._recovery = OPEN
        elif before == OPEN:
            self._recovery = RECOVERY
        if self._recovery == RECOVERY and before == OPEN:
            self._conserves = True
            self._next_round = sample.delivered  # the first round of recovery begins now
            cwnd = max(sample.flight + sample.acked, self.mss)
        elif before != OPEN and self._recovery == OPEN:
            self._conserves = False
            cwnd = max(cwnd, self._before_loss)
        if self._conserves:
            cwnd = max(cwnd, sample.flight + sample.acked)
        self.cwnd = max(cwnd, self.mss)
        return self._conserves

    def _save_cwnd(self) -> None:
        """Remember the window; if it is small already because of an earlier loss or of PROBE_RTT, then the one from before that."""
        if self._recovery == OPEN and self.mode != PROBE_RTT:
            self._before_loss = self.cwnd
        else:
            self._before_loss = max(self._before_loss, self.cwnd)

    def _restore_cwnd(self) -> None:
        self.cwnd = max(self.cwnd, self._before_loss)
