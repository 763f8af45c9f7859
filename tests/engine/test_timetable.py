"""When what nobody answers is sent again, and when it is given up: to the millisecond, against what Linux's documentation says.

The sources are Documentation/networking/ip-sysctl (quoted by knob), tcp(7) and the RFCs; tests/interop/test_timetable.py measures the
kernel.
"""

from __future__ import annotations

import pytest
import timetable
from timetable import Times

from tunstack.engine import SocketOptions
from tunstack.engine.rtt import retries_timeout


def seconds(times: Times) -> tuple[list[float], float | None]:
    """Return the times in s, to the millisecond."""
    return [round(at / 1e6, 3) for at in times.sent], None if times.over is None else round(times.over / 1e6, 3)


def test_syns_are_sent_at_1_3_7_15_31_63_and_given_up_at_127_seconds() -> None:
    """M-25, RFC 6298 5.5: an initial RTO of 1 s that doubles, tcp_syn_retries = 6 times."""
    times = timetable.syn()
    assert seconds(times) == ([0, 1, 3, 7, 15, 31, 63], 127) and times.error == "TimeoutError"


def test_linear_timeouts_of_linux_come_before_the_doubling_and_are_retries_more() -> None:
    """M-25, tcp_syn_linear_timeouts = 4 ("67 seconds till the last retransmission", "final timeout ... after 131 seconds")."""
    assert seconds(timetable.syn(tcp_syn_linear_timeouts=4)) == ([0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67], 131)
    assert seconds(timetable.syn(SocketOptions(syncnt=1), tcp_syn_linear_timeouts=4)) == ([0, 1, 2], 3)  # measured


@pytest.mark.parametrize(("count", "over"), [(1, 3), (2, 7), (5, 63), (7, 247)])
def test_syncnt_overrides_the_retries_of_the_stack(count: int, over: int) -> None:
    """M-25: TCP_SYNCNT; the time between two of them is 120 s at most."""
    sent, at = seconds(timetable.syn(SocketOptions(syncnt=count)))
    assert len(sent) == count + 1 and at == over


@pytest.mark.parametrize(("timeout", "sent"), [(2000, [0, 1]), (2500, [0, 1]), (500, [0, 1]), (8000, [0, 1, 3, 7])])
def test_a_user_timeout_ends_the_attempt_when_it_is_over(timeout: int, sent: list[int]) -> None:
    """M-14, M-25: from the first SYN, not before one was sent again."""
    times = timetable.syn(SocketOptions(user_timeout=timeout))
    assert seconds(times) == (sent, max(timeout / 1000, 1.001 if timeout < 1000 else 0))


def test_syn_acks_are_sent_at_1_3_7_15_31_and_forgotten_at_63_seconds() -> None:
    """M-23, tcp_synack_retries = 5 ("31 seconds till the last retransmission", "final timeout ... after 63 seconds")."""
    assert seconds(timetable.syn_ack()) == ([0, 1, 3, 7, 15, 31], 63)


def test_data_is_sent_again_for_the_hypothetical_924_600_ms() -> None:
    """M-34, tcp_retries2 = 15: "a hypothetical timeout of 924.6 seconds", and the end is "the first RTO which exceeds" it.

    It counts from the first retransmission, with RTO 200 ms: the one at 924.6 s after the data itself is 200 ms short of it.
    """
    assert retries_timeout(15) == 924_600_000
    times = timetable.data()
    exact = [0, 0.2, 0.6, 1.4, 3.0, 6.2, 12.6, 25.4, 51.0, 102.2, 204.6, 324.6, 444.6, 564.6, 684.6, 804.6, 924.6]
    sent, over = seconds(times)
    assert sent == pytest.approx(exact, abs=0.002) and over == pytest.approx(1044.6, abs=0.002)
    assert times.error == "TimeoutError" and not times.was_reset


def test_an_orphan_is_given_up_sooner() -> None:
    """M-53, tcp_orphan_retries = 0 stands for 8: 102.2 s, and the first RTO beyond."""
    assert retries_timeout(8) == 102_200_000
    sent, over = seconds(timetable.data(is_orphan=True))
    assert len(sent) == 10 and over == pytest.approx(204.6, abs=0.002)


def test_a_user_timeout_counts_from_the_first_retransmission() -> None:
    """M-14: as Linux has it; the last timer is drawn in so that it ends with it."""
    sent, over = seconds(timetable.data(SocketOptions(user_timeout=2000)))
    assert sent == [0, 0.2, 0.6, 1.4] and over == 2.2


def test_keepalive_probes_come_after_7200_s_each_75_s_and_nine_of_them() -> None:
    """M-42: tcp_keepalive_time, _intvl, _probes; then ETIMEDOUT, and a RST to whoever may still be there."""
    times = timetable.keepalive(SocketOptions())
    assert seconds(times) == ([7200 + 75 * number for number in range(9)], 7875)
    assert times.error == "TimeoutError" and times.was_reset
    options = SocketOptions(keepidle=10, keepintvl=3, keepcnt=2)
    assert seconds(timetable.keepalive(options)) == ([10, 13], 16)
    assert seconds(timetable.keepalive(SocketOptions(), tcp_keepalive_time=60, tcp_keepalive_probes=1)) == ([60], 135)


def test_fin_wait_2_of_an_orphan_and_time_wait_last_60_seconds() -> None:
    """M-53, M-54: tcp_fin_timeout; TIME-WAIT is TCP_TIMEWAIT_LEN, no knob."""
    assert seconds(timetable.fin_wait_2()) == ([], 60)
    assert seconds(timetable.fin_wait_2(tcp_fin_timeout=10)) == ([], 10)
    assert seconds(timetable.time_wait()) == ([], 60)
    assert seconds(timetable.time_wait(tcp_fin_timeout=10)) == ([], 60)
