"""Receive coalescing in plain Python: reference and stand-in of native/gro.c.

What Linux calls GRO: segments of a flow that follow each other and differ in nothing but their sequence number and payload
become one. It changes how much work a batch is, never what it says: `packets` and `gso_size` keep how it came.

So do bare ACKs, which Linux does not merge: where an ACK advances and the next one does again, the last says all, as if the others
had been lost on the way (they are cumulative, RFC 9293 3.4). It must be known of the one that gives way that it is no duplicate ACK:
it acknowledges more than the segment of its flow before it in the batch.
"""

from __future__ import annotations

from tunstack.wire.buffer import Buffer
from tunstack.wire.segment import ACK, FIN, PSH, Segment

MAX_RUN = 65535  # octets of payload


class Run:
    """A segment that may yet grow: the last one of its flow. Invariant: the payload is whole packets of `unit` octets while `open`."""

    __slots__ = ("advances", "is_open", "options", "parts", "segment", "unit")

    def __init__(self, segment: Segment, options: Buffer, before: Segment | None) -> None:
        """Begin a run; `before` is the segment of its flow before it, in this batch."""
        self.segment = segment
        self.options = options  # all option octets of the first packet
        self.advances = before is not None and _advances(before, segment)
        self.unit = segment.gso_size or segment.length  # payload octets of each packet
        self.parts: list[bytes | memoryview] = list(segment.payload)
        self._close_where_done()

    def _close_where_done(self) -> None:
        # a bare ACK with data, no option that speaks for one packet only (signatures), and no shorter packet at the end
        self.is_open = self.segment.flags == ACK and not self.segment.options and self.unit > 0 and self.segment.length % self.unit == 0

    def absorb(self, segment: Segment, options: Buffer) -> bool:
        """Append the segment if it continues this one, and tell whether it did. A PSH, a FIN or a shorter packet ends the run."""
        head = self.segment
        if (
            not self.is_open
            or not segment.length
            or segment.flags & ~(PSH | FIN) != ACK
            or (segment.gso_size != self.unit if segment.gso_size else segment.length > self.unit)
            or segment.seq != (head.seq + head.length) & 0xFFFFFFFF
            or segment.ack != head.ack
            or segment.window != head.window
            or segment.tos != head.tos
            or segment.urgent != head.urgent
            or options != self.options
            or head.length + segment.length > MAX_RUN
        ):
            return False
        self.parts.extend(segment.payload)
        head.length += segment.length
        head.packets += segment.packets
        head.gso_size = self.unit
        head.flags |= segment.flags
        self._close_where_done()
        return True

    def absorb_ack(self, ack: Segment) -> bool:
        """Let a bare ACK take the place of this one if both advance, and tell whether it did."""
        head = self.segment
        if (
            not self.advances
            or not _is_bare_ack(head)
            or not _is_bare_ack(ack)
            or not _advances(head, ack)
            or ack.seq != head.seq
            or ack.tos != head.tos
            or ack.urgent != head.urgent
            or (ack.ts_val is None) != (head.ts_val is None)
            # A timestamp that went back is dropped by PAWS (RFC 7323 5), and what it would have replaced is not.
            or ((ack.ts_val or 0) - (head.ts_val or 0)) & 0xFFFFFFFF > 0x7FFFFFFF
        ):
            return False
        ack.packets += head.packets
        self.segment = ack
        return True

    def finish(self) -> Segment:
        """Return the segment, its payload contiguous."""
        if len(self.parts) > 1:
            self.segment.payload = (memoryview(b"".join(self.parts)),)
        return self.segment


def _is_bare_ack(segment: Segment) -> bool:
    """Whether it says nothing but numbers."""
    return (
        segment.flags == ACK
        and not segment.length
        and segment.mss is None
        and segment.wscale is None
        and not (segment.sack_ok or segment.sack or segment.options)
    )


def _advances(before: Segment, segment: Segment) -> bool:
    """Whether a segment acknowledges more than the one before it."""
    return bool(before.flags & segment.flags & ACK) and 0 < (segment.ack - before.ack) & 0xFFFFFFFF <= 0x7FFFFFFF


class Coalescer:
    """Collects the segments of one batch, in order of the arrival of their first packets. `acks`: merge bare ACKs too."""

    def __init__(self, enabled: bool, acks: bool) -> None:
        self.enabled = enabled
        self.acks = acks
        self.runs: list[Run] = []
        self.last: dict[bytes, Run] = {}  # by flow: only the latest may grow, or the flow's segments would change places

    def add(self, segment: Segment, options: Buffer) -> None:
        """Take one segment, with all of its option octets."""
        run = self.last.get(segment.flow)
        if run is not None and ((self.enabled and run.absorb(segment, options)) or (self.acks and run.absorb_ack(segment))):
            return
        run = Run(segment, options, None if run is None else run.segment)
        self.last[segment.flow] = run
        self.runs.append(run)

    def finish(self) -> list[Segment]:
        """Return the segments of the batch."""
        return [run.finish() for run in self.runs]
