"""Sequence numbers that are remembered, gigabytes later: comparisons modulo 2^32 see them ahead."""

from __future__ import annotations

from engine.openings import opening

from tunstack.seq import HALF, MASK
from tunstack.sim.script import Runner

OPEN = opening(60_000)


class LongAfter(Runner):
    """A runner whose call `idle` puts what the sender remembers a little more than 2^31 octets back, as after 2 GiB of smooth sending."""

    def _do(self, event, earliest, latest) -> None:  # type: ignore[no-untyped-def]
        super()._do(event, earliest, latest)
        if event.text == "idle":
            conn = self.sockets.all[-1].conn
            assert conn is not None
            conn.tx.snd_sml = conn.recovery.recover = (conn.tx.snd_una - HALF - 5) & MASK


def test_fast_retransmit_works_two_gigabytes_after_the_last() -> None:
    """M-35, RFC 6582 3.2 step 2."""
    script = OPEN + "+0 idle\n+0 write 4000\n"
    script += "".join(f"+0 > {'P' if i % 2 else ''}. {i * 1000 + 1}:{i * 1000 + 1001}(1000) ack 1\n" for i in range(4))
    LongAfter(script + 3 * "+0 < . 1:1(0) ack 1 win 60000\n" + "+0 > . 1:1001(1000) ack 1\n+0 counter TCPFastRetrans=1").run()


def test_a_small_segment_two_gigabytes_ago_does_not_hold_the_next() -> None:
    """M-33: Minshall's variant of Nagle's rule."""
    LongAfter(OPEN + "+0 idle\n+0 write 1500\n+0 > . 1:1001(1000) ack 1\n+0 > P. 1001:1501(500) ack 1").run()
