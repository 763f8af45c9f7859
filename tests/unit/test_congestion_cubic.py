"""CUBIC by the numbers of RFC 9438. M-38."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunstack.congestion import Cubic
from tunstack.congestion.cubic import cube_root

MSS = 1000
SECOND = 1_000_000
NOW = 1_000_000_000


def reduced(window: int, w_max_before: int = 0) -> Cubic:
    """A connection whose window was `window` segments when a loss was found, in recovery's end."""
    control = Cubic(MSS, window * MSS)
    control._w_max = w_max_before * MSS
    control.on_congestion(window * MSS, NOW)
    control.on_recovery_exit(0, NOW)
    return control


def drive(control: Cubic, rtt: int, until: int, at: int = NOW) -> int:
    """Acknowledge a window's segments spread over each round trip, until `until` us later; return the time."""
    end = at + until
    while at < end:
        segments = max(control.cwnd // MSS, 1)
        for index in range(segments):
            control.on_ack(MSS, segments * MSS, rtt, at + rtt * (index + 1) // segments, True)
        at += rtt
    return at


@given(st.integers(0, 1 << 140))
def test_cube_root_is_exact(value: int) -> None:
    root = cube_root(value)
    assert root**3 <= value < (root + 1) ** 3


@pytest.mark.parametrize("window", [10, 100, 333, 1000, 12345])
def test_a_loss_leaves_seven_tenths(window: int) -> None:
    """M-38, RFC 9438 4.6: beta is 717/1024, in whole segments."""
    control = reduced(window)
    assert control.cwnd == control.ssthresh == window * 717 // 1024 * MSS


def test_k_and_the_window_are_those_of_equations_1_and_2() -> None:
    """M-38, RFC 9438 4.2: W_max 1000, cwnd_epoch 700: K = cbrt(300 / 0.4) = 9.0856 s."""
    control = reduced(1000)
    control.on_ack(MSS, MSS, 0, NOW, True)
    assert control._k == pytest.approx((300 / 0.4) ** (1 / 3) * SECOND, abs=1)
    for t in (0.0, 1.0, 5.0, 9.0856, 12.0, 20.0):
        expected = 0.4 * (t - (300 / 0.4) ** (1 / 3)) ** 3 + 1000
        assert control.window_at(int(t * SECOND)) / MSS == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("rtt", [100_000, 200_000])
def test_the_window_follows_the_cubic_whatever_the_round_trip_time(rtt: int) -> None:
    """M-38, RFC 9438 4.2 to 4.5: concave to the plateau at K, convex beyond it."""
    control = reduced(1000)
    at = NOW
    for seconds in (3, 6, 9, 12, 15):
        at = drive(control, rtt, NOW + seconds * SECOND - at, at)
        expected = 0.4 * (seconds - 9.0856) ** 3 + 1000
        assert control.cwnd / MSS == pytest.approx(expected, rel=0.02), seconds


def test_a_flow_that_did_not_come_back_to_its_maximum_gives_room() -> None:
    """M-38, RFC 9438 4.7: fast convergence, W_max = cwnd * (1 + beta) / 2."""
    assert reduced(1000, w_max_before=1200)._w_max == 1000 * MSS * (1024 + 717) // 2048
    assert reduced(1000, w_max_before=900)._w_max == 1000 * MSS


def test_below_reno_it_grows_as_reno_would() -> None:
    """M-38, RFC 9438 4.3: on short, small paths W_est rules: alpha = 3 (1 - beta) / (1 + beta) = 0.529 segments a round trip."""
    control = reduced(20)
    start = control.cwnd
    drive(control, 10_000, 50_000)  # the cubic needs K = cbrt(6 / 0.4) = 2.5 s
    assert (control.cwnd - start) / MSS == pytest.approx(5 * 0.529, rel=0.06)


def test_having_caught_up_it_grows_by_a_segment_as_reno() -> None:
    """M-38, RFC 9438 4.3: alpha is 1 from the window before the reduction on."""
    control = reduced(20)
    at = drive(control, 1000, 20_000)
    while control._estimate < 20 * MSS:
        at = drive(control, 1000, 1000, at)
    before = control.cwnd
    drive(control, 1000, 10_000, at)
    assert (control.cwnd - before) / MSS == pytest.approx(10, rel=0.06)


def test_growth_is_half_as_much_again_a_round_trip_at_most() -> None:
    """M-38, RFC 9438 4.2."""
    control = reduced(1000)
    control.on_ack(MSS, MSS, 100_000, NOW, True)
    before = control.cwnd
    later = NOW + 60 * SECOND  # the cubic is at 54,000 segments
    for index in range(before // MSS):
        control.on_ack(MSS, before, 100_000, later + index, True)
    assert 1.45 < control.cwnd / before <= 1.66


def test_after_a_timeout_the_plateau_is_forgotten() -> None:
    """M-38, RFC 9438 4.8: K is 0 and W_max the window at which congestion avoidance begins."""
    control = Cubic(MSS, 100 * MSS)
    control.on_rto(100 * MSS, NOW)
    assert control.ssthresh == 70 * MSS
    control.cwnd = control.ssthresh
    control.on_ack(MSS, 70 * MSS, 100_000, NOW, True)
    assert (control._k, control._origin) == (0, 70 * MSS)


def test_without_a_loss_before_it_grows_by_a_twentieth_a_round_trip() -> None:
    """As Linux does: slow start may have been left too soon."""
    control = Cubic(MSS, 100 * MSS)
    control.ssthresh = 100 * MSS
    drive(control, 10_000, 10_000)
    assert control.cwnd / MSS == pytest.approx(105, abs=0.5)


def test_time_in_which_the_application_sent_too_little_does_not_count() -> None:
    """M-38, RFC 9438 4.2 and 5.8: no jump after it."""
    limited, free = reduced(1000), reduced(1000)
    at = drive(limited, 100_000, SECOND)
    drive(free, 100_000, SECOND)
    while at < NOW + 30 * SECOND:
        at += 100_000
        limited.on_ack(MSS, MSS, 100_000, at, False)
    assert limited.cwnd == free.cwnd
    drive(limited, 100_000, SECOND, at)
    drive(free, 100_000, SECOND, NOW + SECOND)
    assert limited.cwnd == pytest.approx(free.cwnd, rel=0.001)


def test_idle_time_does_not_count() -> None:
    """M-39, RFC 9438 5.8."""
    control = reduced(1000)
    at = drive(control, 100_000, SECOND)
    epoch, window = control._epoch_at, control.cwnd
    control.on_idle(30 * SECOND, 300_000, at + 30 * SECOND)
    assert control._epoch_at == epoch + 30 * SECOND
    assert control.cwnd == window  # it was below the initial one


def test_a_reduction_in_error_gives_the_epoch_back() -> None:
    """M-37, RFC 9438 4.9: the cubic goes on where it was."""
    disturbed, free = reduced(1000), reduced(1000)
    at = drive(disturbed, 100_000, 5 * SECOND)
    drive(free, 100_000, 5 * SECOND)
    before = disturbed.cwnd
    disturbed.on_congestion(before, at)
    disturbed.cwnd = disturbed.ssthresh
    disturbed.on_spurious(at + 100_000)
    assert disturbed.cwnd == before
    drive(disturbed, 100_000, 5 * SECOND, at + 100_000)
    drive(free, 100_000, 5 * SECOND, at)
    assert disturbed.cwnd == pytest.approx(free.cwnd, rel=0.001)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ack", "ack", "ack", "ack", "loss", "rto", "spurious", "idle", "mss", "exit"]),
            st.integers(1, 70_000),
            st.integers(0, 2_000_000),
        ),
        max_size=200,
    )
)
def test_windows_stay_within_reason_whatever_happens(events: list[tuple[str, int, int]]) -> None:
    """At least an MSS, ints, and congestion avoidance grows by half of what was acknowledged at most."""
    control = Cubic(MSS, 10 * MSS)
    now = NOW
    for event, octets, delay in events:
        now += delay
        before = control.cwnd
        if event == "ack":
            avoiding = control.cwnd >= control.ssthresh
            control.on_ack(octets, max(control.cwnd, octets), delay, now, bool(octets % 3))
            assert before <= control.cwnd <= before + octets
            if avoiding:
                assert control.cwnd <= before + octets // 2 + 1
        elif event == "loss":
            control.on_congestion(before, now)
            assert 2 * control.mss <= control.ssthresh <= max(before, 2 * control.mss)
        elif event == "rto":
            control.on_rto(before, now)
            control.cwnd = control.mss
        elif event == "spurious":
            control.on_spurious(now)
            assert control.cwnd >= before
        elif event == "idle":
            control.on_idle(delay + 200_000, 200_000, now)
        elif event == "mss":
            control.on_mss(max(octets % 1460, 88))
        else:
            control.on_recovery_exit(0, now)
        assert isinstance(control.cwnd, int) and control.cwnd >= control.mss
        assert isinstance(control.ssthresh, int)
