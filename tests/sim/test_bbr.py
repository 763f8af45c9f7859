"""BBR on a bottleneck, in virtual time: it fills the pipe, keeps the queue short, and does not take losses or pauses for the path."""

from __future__ import annotations

from itertools import pairwise

import pytest
from sim.bottleneck import MS, MSS, SECOND, Bottleneck

from tunstack.congestion.bbr import CYCLE, DRAIN, PROBE_BW, PROBE_RTT, STARTUP
from tunstack.congestion.registry import available

SLOW, FAST = 10_000_000, 100_000_000  # bits a second


def test_bbr_can_be_chosen_by_name() -> None:
    """M-38."""
    assert "bbr" in available()


@pytest.mark.parametrize("rate", [SLOW, FAST])
def test_it_fills_the_pipe_within_some_round_trips(rate: int) -> None:
    """M-38: ten round trips of 20 ms after the first data nothing of the bottleneck is idle, and the estimate is within 1 %."""
    flow = Bottleneck("bbr", rate=rate)
    assert flow.share(220 * MS, 720 * MS) > 0.97
    assert flow.bbr.bandwidth == pytest.approx(flow.goodput_limit, rel=0.01)
    assert flow.bbr.mode == PROBE_BW


def test_startup_doubles_each_round_trip_then_drains() -> None:
    """M-38: from 10 segments to a bandwidth-delay product of 173 in five or six round trips; then less than the path takes, until the
    queue is gone."""
    flow = Bottleneck("bbr", rate=FAST)
    modes: list[int] = []
    bandwidths = []
    for at in range(40 * MS, 600 * MS, 2 * MS):
        flow.run_until(at)
        if not modes or flow.bbr.mode != modes[-1]:
            modes.append(flow.bbr.mode)
        if flow.bbr.mode == DRAIN:
            assert flow.bbr.pacing_rate < flow.bbr.bandwidth // 2
        bandwidths.append(flow.bbr.bandwidth)
    assert modes == [STARTUP, DRAIN, PROBE_BW]
    filled = next(index for index, bandwidth in enumerate(bandwidths) if bandwidth > 0.97 * flow.goodput_limit)
    assert 40 * MS + filled * 2 * MS <= 160 * MS


@pytest.mark.parametrize("rate", [SLOW, FAST])
def test_the_queue_is_short(rate: int) -> None:
    """M-38: once the pipe is full less than half a bandwidth-delay product on average, at full rate; reno fills what queue there is."""
    flows = {name: Bottleneck(name, rate=rate, queue=rate // 100_000) for name in ("bbr", "reno")}
    assert flows["bbr"].share(1 * SECOND, 3 * SECOND) > 0.98
    flows["reno"].run_until(3 * SECOND)
    bbr, reno = (flow.mean_queue(1 * SECOND, 3 * SECOND) for flow in flows.values())
    assert bbr < 0.5 * flows["bbr"].bdp / 1500
    assert bbr < reno / 3


def test_nothing_is_dropped_where_the_queue_holds_what_startup_sends_too_much() -> None:
    """M-38: its window is 2.89 bandwidth-delay products (of 17 packets) and three bursts; all but the first of them may queue."""
    flow = Bottleneck("bbr", rate=SLOW, queue=44)
    flow.run_until(5 * SECOND)
    assert flow.link is not None
    assert flow.link.forward.dropped == 0


def test_the_rate_follows_the_gain_cycle() -> None:
    """M-38: one phase at 5/4, one at 3/4, six at the estimate, about a round trip each."""
    flow = Bottleneck("bbr", rate=FAST)
    flow.run_until(1 * SECOND)
    gains = []
    for at in range(1000 * MS, 1500 * MS, MS):
        flow.run_until(at)
        gains.append(round(flow.bbr.pacing_rate / flow.bbr.bandwidth / 0.99, 2))
    assert set(gains) == {1.25, 0.75, 1.0}
    assert gains.count(1.0) > 4 * gains.count(1.25)
    after = {later for earlier, later in pairwise(gains) if earlier == 1.25}
    assert after <= {1.25, 0.75}  # what probing queued is drained at once


def test_the_phase_in_which_the_cycle_begins_depends_on_the_moment() -> None:
    """M-38: flows that share a bottleneck are not to probe together; none begins with the phase that drains."""
    phases = set()
    for rate in range(8_000_000, 14_000_000, 300_000):
        flow = Bottleneck("bbr", rate=rate)
        while flow.bbr_mode() != PROBE_BW:
            flow.run_until(flow.elapsed + 500)
        phases.add(flow.bbr._cycle_index)
    assert len(phases) >= 4
    assert CYCLE.index(min(CYCLE)) not in phases


def test_probe_rtt_comes_after_ten_seconds_and_ends() -> None:
    """M-38: four segments in flight for 200 ms and a round trip, then all as before. The minimum was seen by the handshake, on an empty
    path."""
    flow = Bottleneck("bbr", rate=2 * SLOW, rtt=10 * MS)  # 20 round trips in PROBE_RTT: more than the bandwidth is remembered for
    flow.run_until(9900 * MS)
    bandwidth = least = flow.bbr.bandwidth
    spells: list[list[int]] = []
    for at in range(9900 * MS, 11_500 * MS, MS):
        flow.run_until(at)
        least = min(least, flow.bbr.bandwidth)
        if flow.bbr.mode == PROBE_RTT:
            assert flow.bbr.cwnd <= 4 * MSS
            if not spells or spells[-1][1] < at - MS:
                spells.append([at, at])
            spells[-1][1] = at
    assert len(spells) == 1
    begin, end = spells[0]
    assert 10_000 * MS < begin < 10_100 * MS
    assert 200 * MS <= end - begin < 300 * MS
    assert flow.mean_queue(end - 100 * MS, end) < 1
    # Samples of that time are no measure of the bandwidth.
    assert least == pytest.approx(bandwidth, rel=0.02)
    assert flow.bbr.mode == PROBE_BW
    assert flow.share(11_500 * MS, 12_500 * MS) > 0.98


def test_a_longer_path_is_noticed() -> None:
    """M-38: a route changes, and the round trip with it: within two windows of ten seconds min_rtt is the new one."""
    flow = Bottleneck("bbr", rate=SLOW)
    flow.run_until(2 * SECOND)
    flow.change(rtt=60 * MS)
    assert flow.share(23 * SECOND, 24 * SECOND) > 0.95
    assert 60 * MS <= flow.bbr.min_rtt < 66 * MS


def test_a_bottleneck_that_changes_is_followed() -> None:
    """M-38: down within a window of ten round trips (which the queue makes long), up by a quarter each cycle of the gains."""
    flow = Bottleneck("bbr", rate=FAST)
    flow.run_until(1 * SECOND)
    flow.change(rate=FAST // 4)
    assert flow.share(3500 * MS, 4000 * MS) > 0.97
    assert flow.bbr.bandwidth == pytest.approx(flow.goodput_limit, rel=0.02)
    assert flow.mean_queue(3500 * MS, 4000 * MS) < flow.bdp / 1500
    flow.change(rate=FAST)
    assert flow.share(5500 * MS, 6000 * MS) > 0.9


@pytest.mark.parametrize(("loss", "least"), [(0.01, 0.93), (0.03, 0.9), (0.1, 0.75)])
def test_losses_do_not_bring_it_down(loss: float, least: float) -> None:
    """M-38: what is lost at random is no sign of a full queue. Reno falls to a tenth."""
    assert Bottleneck("bbr", rate=FAST, loss=loss).share(500 * MS, 2500 * MS) > least * (1 - loss)
    assert Bottleneck("reno", rate=FAST, loss=loss).share(500 * MS, 2500 * MS) < 0.2


def test_recovery_begins_with_packet_conservation_and_gives_the_window_back() -> None:
    """M-35, M-38: in the first round of recovery no more leaves than arrived; afterwards the window is what it was."""
    flow = Bottleneck("bbr", rate=FAST)
    flow.run_until(1 * SECOND)
    before = flow.bbr.cwnd
    flow.change(loss=0.2)
    flow.run_until(1010 * MS)
    flow.change(loss=0)
    windows = []
    for at in range(1010 * MS, 1300 * MS, MS):
        flow.run_until(at)
        windows.append(flow.bbr.cwnd)
    assert min(windows) < 0.8 * before
    assert windows[-1] >= 0.95 * before
    assert flow.conn.stack.counters.TCPTimeouts == 0


def test_a_path_that_was_dead_for_seconds_is_filled_again() -> None:
    """M-34, M-38: timeouts and a window of one segment; the estimate is not forgotten, and full speed is back within a second."""
    flow = Bottleneck("bbr", rate=SLOW)
    flow.run_until(2 * SECOND)
    flow.change(loss=1.0)
    flow.run_until(5 * SECOND)
    assert flow.conn.stack.counters.TCPTimeouts >= 2
    flow.change(loss=0)
    # The next timeout comes up to 3.5 s later.
    flow.run_until(9 * SECOND)
    assert flow.share(9 * SECOND, 10 * SECOND) > 0.95


def test_an_application_that_pauses_does_not_lower_the_estimate() -> None:
    """M-38: a tenth of the rate for ten seconds; then all is there again at once."""
    flow = Bottleneck("bbr", rate=SLOW)
    flow.run_until(2 * SECOND)
    flow.source.is_on = False
    for at in range(2100 * MS, 12_000 * MS, 100 * MS):
        flow.run_until(at)
        flow.write(12_500)
    assert flow.bbr.bandwidth == pytest.approx(flow.goodput_limit, rel=0.05)
    flow.source.is_on = True
    flow.source.on_writable()
    assert flow.share(12_050 * MS, 12_300 * MS) > 0.95


def test_an_application_that_sends_little_does_not_raise_the_estimate() -> None:
    """M-38: bursts of some segments are no measure of more than the path has, and STARTUP does not end before the path was filled."""
    flow = Bottleneck("bbr", rate=SLOW, source=False)
    flow.conn.set_option("nodelay", True, flow.world.now())
    for at in range(100 * MS, 5000 * MS, 50 * MS):
        flow.run_until(at)
        flow.write(10_000)
    assert 0 < flow.bbr.bandwidth <= 1.01 * flow.goodput_limit
    assert flow.bbr.mode == STARTUP
    flow.source.is_on = True
    flow.source.on_writable()
    assert flow.share(5200 * MS, 5700 * MS) > 0.95


def test_a_restart_after_a_pause_is_paced_at_the_estimate() -> None:
    """M-39: the window stays as it was, but it does not leave as a burst: the bottleneck's queue stays almost empty."""
    flow = Bottleneck("bbr", rate=SLOW)
    flow.run_until(2 * SECOND)
    flow.source.is_on = False
    flow.run_until(6 * SECOND)
    assert not flow.conn.unacked
    cwnd = flow.bbr.cwnd
    flow.write(60_000)
    flow.run_until(6 * SECOND + 20 * MS)
    # What a round trip takes at 10 Mbit/s, and no more than two bursts of two segments beyond it.
    assert flow.sent(6 * SECOND, 6 * SECOND + 20 * MS) <= flow.bdp + 4 * 1500
    assert max(length for at, length in flow.queues if at > 6 * SECOND) <= 4
    assert flow.bbr.cwnd >= cwnd - 2 * MSS


def test_a_paced_flow_leaves_evenly() -> None:
    """M-39: in no millisecond does more leave than the pacing rate with its gain of 5/4 has room for, and one burst of a millisecond."""
    flow = Bottleneck("bbr", rate=FAST)
    flow.run_until(2 * SECOND)
    flow.departures.clear()
    flow.run_until(2300 * MS)
    for start in range(2000 * MS, 2300 * MS, MS):
        assert flow.sent(start, start + MS) <= FAST // 8 // 1000 * 5 // 4 + 10 * 1500


def test_a_process_that_is_held_up_in_each_round_trip_keeps_its_rate() -> None:
    """M-39: asleep for 12 ms of each 20, it makes up for that when it wakes, and does not take its own lateness for the path's."""
    flow = Bottleneck("bbr", rate=SLOW)
    host = flow.world.hosts[0]
    pump = host.pump

    def pump_when_awake(now: int) -> None:
        phase = now % (20 * MS)
        if phase < 12 * MS:
            host._marked = False
            flow.world.call_at(now - phase + 12 * MS, host.mark)
        else:
            pump(now)

    host.pump = pump_when_awake  # type: ignore[method-assign]
    assert flow.share(2 * SECOND, 5 * SECOND) > 0.95


def test_changing_to_bbr_and_back_on_a_running_connection() -> None:
    """M-38: TCP_CONGESTION on a connection with data in flight; the estimate begins anew, the stream goes on."""
    flow = Bottleneck("reno", rate=SLOW, queue=60)
    flow.run_until(2 * SECOND)
    queue = flow.mean_queue(1 * SECOND, 2 * SECOND)
    flow.conn.set_option("congestion", "bbr", flow.world.now())
    assert flow.share(3 * SECOND, 4 * SECOND) > 0.97
    assert flow.mean_queue(3 * SECOND, 4 * SECOND) < queue / 2
    flow.conn.set_option("congestion", "reno", flow.world.now())
    assert flow.conn.tx.pacer is None and flow.conn.tx.rate is None
    assert flow.share(5 * SECOND, 6 * SECOND) > 0.97
