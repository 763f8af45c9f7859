"""One end of a connection that behaves as its plan says, and what must hold for it at every call.

The stream is compared octet by octet as it comes; the order of calls is that of engine/sink.py.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

from worlds.draw import AppPlan

from tunstack.engine.connection import Connection
from tunstack.sim.world import World

TOGGLES_MAX = 25  # how often one application pauses and resumes


class Application:
    """A sink that writes `stream`, expects `expected`, and ends as it likes."""

    def __init__(self, world: World, name: str, plan: AppPlan, stream: bytes, expected: bytes, peer_piece: int, seed: int) -> None:
        self.name = name
        self.plan = plan
        self.stream = stream
        self.expected = expected
        self.conn: Connection
        self.written = 0
        self.received = 0
        self.error: OSError | None = None
        self.writes = 0
        self.has_ended = False  # it has called close() or abort(): what comes later is not for it
        self.gave_up = False  # it did so before everything had arrived
        self.was_refused = False  # a write was refused: the connection was over
        self.on_step: Callable[[Connection], None] = lambda conn: None  # after everything that it orders
        self.on_end: Callable[[], None] = lambda: None
        self.is_established = False
        self.has_eof = False
        self.is_closed = False
        self._world = world
        self._random = random.Random(seed)
        self._peer_piece = peer_piece  # of a conversation in turns
        self._is_shut = False
        self._write_comes = False
        self._toggles = 0
        self._idle = 0  # sips in a row that found nothing

    def start(self, conn: Connection) -> None:
        """Take a connection over, as soon as there is one."""
        plan = self.plan
        self.conn = conn
        conn.write_low_water = plan.low_water
        for at, name, value in plan.changes:
            self._later(at, self._change, name, value)
        if plan.ending in ("close", "abort"):
            self._later(plan.end_at, self._end_abruptly)
        if plan.reading in ("late", "sips"):
            conn.pause(self._world.now())
            self._later(self._random.randrange(plan.rest), self._sip if plan.reading == "sips" else self._resume)
        else:
            conn.resume(self._world.now())
            if plan.reading == "pauses":
                self._later(self._random.randrange(plan.rest), self._toggle_reading)
        self._later(self._random.randrange(plan.gap + 1), self._write)
        self.on_step(conn)

    def _later(self, delay: int, callback: Callable[..., None], *args: object) -> None:
        self._world.call_later(delay, callback, *args)

    @property
    def _is_gone(self) -> bool:
        return self.has_ended or self.is_closed

    # What it orders.

    def _change(self, name: str, value: object) -> None:
        if not self._is_gone:
            self.conn.set_option(name, value, self._world.now())
            self.on_step(self.conn)

    def _write(self) -> None:
        self._write_comes = False
        if self._is_gone or self._is_shut:
            return
        plan = self.plan
        left = len(self.stream) - self.written
        if plan.writing == "turns":
            turn = self.written // plan.piece
            if left and self.received < self._peer_piece * (turn if self.conn.listener is None else turn + 1):
                return  # it is the other's turn; on_data goes on
        elif self.conn.unsent > self.conn.write_low_water:
            return  # on_writable goes on
        if left:
            size = left if plan.writing == "whole" else min(left, plan.piece)
            more = plan.more > 0 and self._random.random() < plan.more and size < left
            if not self._send(self.stream[self.written : self.written + size], more):
                return
            self.written += size
        if self.written < len(self.stream):
            self._write_soon()
        else:
            self._finish_writing()

    def _write_soon(self) -> None:
        if not self._write_comes:
            self._write_comes = True
            self._later(self._random.randrange(self.plan.gap + 1), self._write)

    def _send(self, data: bytes, more: bool) -> bool:
        try:
            self.conn.send(data, self._world.now(), more)
        except BrokenPipeError:
            assert self.conn.is_over, f"{self.name}: EPIPE in {self.conn.state.name}"
            self.was_refused = True
            return False
        self.writes += 1
        self.on_step(self.conn)
        return True

    def _finish_writing(self) -> None:
        if self.plan.ending == "rush":
            self.gave_up = True  # what comes is not waited for
            self._close()
        elif self.has_eof:
            self._close()
        else:
            try:
                self.conn.shutdown_write(self._world.now())
            except OSError as error:
                assert error.errno == errno.ENOTCONN and self.conn.is_over, f"{self.name}: {error} in {self.conn.state.name}"
                self.was_refused = True
                return
            self._is_shut = True
            self.on_step(self.conn)

    def _close(self) -> None:
        self.has_ended = True
        self.conn.close(self._world.now())
        self.on_step(self.conn)

    def _end_abruptly(self) -> None:
        if self._is_gone:
            return
        self.has_ended = self.gave_up = True
        now = self._world.now()
        if self.plan.ending == "abort":
            self.conn.abort(now)
            assert self.conn.is_over
            self.on_end()
        else:
            self.conn.close(now)
        self.on_step(self.conn)

    # How it reads.

    def _resume(self) -> None:
        if not self._is_gone:
            self.conn.resume(self._world.now())
            if not self._is_gone:
                self.on_step(self.conn)

    def _toggle_reading(self) -> None:
        if self._is_gone:
            return
        if self.conn.paused:
            self._resume()
        else:
            self.conn.pause(self._world.now())
        self._toggles += 1
        if not self.has_eof and not self._is_gone and (self.conn.paused or self._toggles < TOGGLES_MAX):
            self._later(1 + self._random.randrange(self.plan.rest), self._toggle_reading)

    def _sip(self) -> None:
        """Read some of what waits, paused as we are. When nothing more can come, resume, to hear of the end."""
        if self._is_gone:
            return
        conn = self.conn
        data = conn.read(self.plan.sip, self._world.now())
        if self._is_gone:  # reading the last of it brought on_closed
            self._take(data)
            return
        self._take(data)
        self.on_step(conn)
        is_all = self.received == len(self.expected) or conn.is_over or (conn.rx is not None and conn.rx.eof)
        if not conn.readable and is_all:
            self._resume()
        else:
            self._idle = 0 if data else min(self._idle + 1, 10)  # who finds nothing looks less often
            self._later((1 + self._random.randrange(min(self.plan.rest, 1_000_000))) << self._idle, self._sip)

    def _take(self, data: bytes | memoryview) -> None:
        end = self.received + len(data)
        assert data == self.expected[self.received : end], f"{self.name}: not the octets that were sent, at {self.received}"
        self.received = end
        if self.plan.writing == "turns" and not self._is_shut and not self._write_comes:
            self._write_soon()

    # What the connection tells.

    def on_established(self) -> None:
        assert not self.is_established and not self._is_gone and not self.received, f"{self.name}: established again or late"
        self.is_established = True

    def on_data(self, data: memoryview) -> None:
        assert not self.conn.paused, f"{self.name}: data while paused"
        assert not self.has_eof, f"{self.name}: data after the end"
        assert not self._is_gone, f"{self.name}: data after close"
        assert len(data), f"{self.name}: data of no length"
        self._take(data)

    def on_eof(self) -> None:
        assert not self.conn.paused, f"{self.name}: the end while paused"
        assert not self.has_eof and not self._is_gone, f"{self.name}: a second end"
        self.has_eof = True
        if self.written == len(self.stream):
            self._close()
        elif self.plan.writing == "turns" and self.received < len(self.expected):
            self.gave_up = True  # the other has left the conversation
            self._close()

    def on_writable(self) -> None:
        assert not self.is_closed, f"{self.name}: writable after the end"
        assert self.conn.unsent <= self.conn.write_low_water, f"{self.name}: not writable"
        if not self._is_gone and self.plan.writing != "turns":
            self._write_soon()

    def on_closed(self, error: OSError | None) -> None:
        assert not self.is_closed, f"{self.name}: closed a second time"
        self.is_closed = True
        self.error = error
        self.on_end()
