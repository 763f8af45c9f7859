"""Reno and Tahoe by RFC 5681, and what every algorithm inherits. M-38, M-39."""

from __future__ import annotations

import pytest

from tunstack.congestion import INFINITE, CongestionControl, Cubic, Reno, Tahoe

MSS = 1000
RTO = 300_000


def acknowledge(control: CongestionControl, octets: int, piece: int = MSS, limited: bool = True) -> None:
    while octets:
        size = min(piece, octets)
        control.on_ack(size, control.cwnd, 100_000, 0, limited)
        octets -= size


@pytest.mark.parametrize("piece", [MSS, 2 * MSS, 7 * MSS, 64_000])
@pytest.mark.parametrize("algorithm", [Reno, Tahoe, Cubic])
def test_slow_start_grows_by_what_is_acknowledged_whatever_one_ack_covers(algorithm: type[Reno], piece: int) -> None:
    """M-38, RFC 5681 3.1, RFC 3465."""
    control = algorithm(MSS, 10 * MSS)
    acknowledge(control, 70 * MSS, piece)
    assert control.cwnd == 80 * MSS


@pytest.mark.parametrize("piece", [MSS, 2 * MSS, 10 * MSS])
def test_congestion_avoidance_adds_one_segment_a_window(piece: int) -> None:
    """M-38, RFC 5681 3.1."""
    control = Reno(MSS, 10 * MSS)
    control.ssthresh = 10 * MSS
    windows = []
    for _ in range(5):
        acknowledge(control, control.cwnd, piece)
        windows.append(control.cwnd // MSS)
    assert windows == [11, 12, 13, 14, 15]


def test_what_slow_start_leaves_over_counts_in_congestion_avoidance() -> None:
    """M-38."""
    control = Reno(MSS, 10 * MSS)
    control.ssthresh = 12 * MSS
    control.on_ack(14 * MSS, 14 * MSS, 0, 0, True)
    assert control.cwnd == 13 * MSS


def test_a_loss_halves_the_window_to_whole_segments_and_no_less_than_two() -> None:
    """M-38, RFC 5681 equation 4, as in Linux of the window."""
    for segments, half in ((10, 5), (11, 5), (24, 12), (3, 2), (1, 2)):
        control = Reno(MSS, segments * MSS)
        control.on_congestion(segments * MSS, 0)
        assert (control.cwnd, control.ssthresh) == (segments * MSS, half * MSS)  # the engine brings cwnd down
        control.on_recovery_exit(0, 0)
        assert control.cwnd == half * MSS


def test_a_window_that_is_not_used_does_not_grow() -> None:
    """M-39, RFC 7661 as Linux has it."""
    for ssthresh in (INFINITE, 10 * MSS):
        control = Reno(MSS, 10 * MSS)
        control.ssthresh = ssthresh
        acknowledge(control, 100 * MSS, limited=False)
        assert control.cwnd == 10 * MSS


@pytest.mark.parametrize("algorithm", [Reno, Cubic])
def test_a_reduction_in_error_is_taken_back(algorithm: type[Reno]) -> None:
    """M-37: what was reached since is kept."""
    control = algorithm(MSS, 20 * MSS)
    control.ssthresh = 18 * MSS
    control.on_congestion(20 * MSS, 0)
    control.cwnd = control.ssthresh
    control.on_spurious(0)
    assert (control.cwnd, control.ssthresh) == (20 * MSS, 18 * MSS)


@pytest.mark.parametrize(("idle", "window"), [(RTO, 40), (RTO + 1, 20), (2 * RTO, 20), (2 * RTO + 1, 10), (100 * RTO, 10)])
@pytest.mark.parametrize("algorithm", [Reno, Cubic, CongestionControl])
def test_an_idle_window_is_halved_each_rto_down_to_the_initial_one(algorithm: type[CongestionControl], idle: int, window: int) -> None:
    """M-39, RFC 5681 4.1, RFC 2861 as Linux has it."""
    control = algorithm(MSS, 10 * MSS)
    control.cwnd = 40 * MSS
    control.ssthresh = 20 * MSS
    control.on_idle(idle, RTO, 1 << 40)
    assert (control.cwnd, control.ssthresh) == (window * MSS, 30 * MSS)


def test_an_idle_window_below_the_initial_one_stays() -> None:
    """M-39: RW = min(IW, cwnd)."""
    control = Reno(MSS, 10 * MSS)
    control.cwnd = 4 * MSS
    control.on_idle(100 * RTO, RTO, 1 << 40)
    assert control.cwnd == 4 * MSS


@pytest.mark.parametrize("algorithm", [Reno, Tahoe, Cubic])
def test_another_mss_keeps_the_windows_in_segments(algorithm: type[Reno]) -> None:
    control = algorithm(1000, 20_000)
    control.ssthresh = 30_000
    control.on_mss(500)
    assert (control.cwnd, control.ssthresh, control.restart_window) == (10_000, 15_000, 10_000)
    control.on_congestion(10_000, 0)
    assert control.ssthresh == (7_000 if algorithm is Cubic else 5_000)


def test_tahoe_is_reno_without_fast_recovery() -> None:
    """M-38."""
    assert not Tahoe.fast_recovery and Reno.fast_recovery and Cubic.fast_recovery
    assert (Tahoe.name, Reno.name, Cubic.name) == ("tahoe", "reno", "cubic")
