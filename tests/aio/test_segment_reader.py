"""SegmentReader beside asyncio's StreamReader: whatever is fed and read, in whatever order, both say and do the same."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tunstack.aio.streams import PIECES_MAX, WHOLE, SegmentReader

TEXT = st.binary(max_size=60).map(lambda data: bytes(b"ab\n|"[octet % 4] for octet in data))
LARGE = st.builds(lambda size, at: bytearray(b"-" * at + b"\n" + b"-" * (size - at)), st.integers(WHOLE, 3 * WHOLE), st.integers(0, WHOLE))
SEPARATORS = st.sampled_from([b"\n", b"|", b"a|", b"\n|\n", b""])


class Valve:
    """A transport that can be paused, or cannot."""

    def __init__(self, can_pause: bool) -> None:
        self.can_pause = can_pause
        self.calls = []

    def pause_reading(self):
        self.calls.append("pause")
        if not self.can_pause:
            raise NotImplementedError

    def resume_reading(self):
        self.calls.append("resume")


class Twins(RuleBasedStateMachine):
    """Two readers that are fed the same and asked the same."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.pending = None  # the two tasks that wait, and whether they read(n)
        self.eof = False
        self.fed = self.taken = 0  # octets
        self.large = set()  # where a large piece begins

    @initialize(limit=st.sampled_from([1, 7, 50, WHOLE, 20_000]), can_pause=st.booleans(), has_transport=st.booleans())
    def make(self, limit, can_pause, has_transport):
        self.real, self.ours = asyncio.StreamReader(limit, self.loop), SegmentReader(limit, self.loop)
        self.valves = Valve(can_pause), Valve(can_pause)
        if has_transport:
            self.real.set_transport(self.valves[0])
            self.ours.set_transport(self.valves[1])

    def teardown(self):
        if self.pending is not None:
            self.cancel()
        self.loop.close()

    def settle(self):
        for _ in range(5):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        if self.pending is not None and all(task.done() for task in self.pending[0]):
            (real, ours), self.pending = self.pending[0], None
            self.compare(outcome(real), outcome(ours))
        elif self.pending is not None:
            assert not any(task.done() for task in self.pending[0])

    def compare(self, real, ours):
        assert ours == real
        kind, value = ours
        if kind == "value" and isinstance(value, bytes):
            self.taken += len(value)
        self.taken = self.fed - len(self.real._buffer)  # what an exception threw away too

    def both(self, name, *arguments):
        tasks = [self.loop.create_task(call(reader, name, *arguments)) for reader in (self.real, self.ours)]
        if self.pending is not None:  # somebody else is waiting already
            self.settle_second(tasks)
            return
        self.pending = tasks, name == "read"
        self.settle()

    def settle_second(self, tasks):
        self.settle()
        done = [task.done() for task in tasks]
        assert done[0] == done[1]
        if done[0]:
            self.compare(*map(outcome, tasks))
        else:
            self.pending = tasks, False

    @precondition(lambda self: not self.eof)
    @rule(pieces=st.lists(st.one_of(TEXT, LARGE), min_size=1, max_size=4))
    def feed(self, pieces):
        for piece in pieces:
            if len(piece) >= WHOLE:
                self.large.add(self.fed)
            self.fed += len(piece)
            self.real.feed_data(piece)
            self.ours.feed_data(piece)
            if self.pending is not None and self.pending[1]:
                self.settle()  # read(n) takes what there is, which differs where several have come
        self.settle()

    @precondition(lambda self: not self.eof)
    @rule()
    def feed_many_small(self):
        for number in range(PIECES_MAX + 20):
            self.feed([b"%d" % number])

    @rule()
    def feed_eof(self):
        self.eof = True
        self.real.feed_eof()
        self.ours.feed_eof()
        self.settle()

    @precondition(lambda self: self.eof)
    @rule()
    def feeding_after_the_end_is_an_error(self):
        texts = []
        for reader in (self.real, self.ours):
            with pytest.raises(AssertionError) as caught:
                reader.feed_data(b"x")
            texts.append(str(caught.value).splitlines()[0])
        assert texts[0] == texts[1]

    @precondition(lambda self: self.fed > 100)
    @rule()
    def set_exception(self):
        error = ConnectionResetError("reset")
        self.real.set_exception(error)
        self.ours.set_exception(error)
        self.settle()

    @rule(n=st.sampled_from([1, 3, 20, 500, WHOLE, WHOLE + 1, 10_000, 1 << 20]))
    def read(self, n):
        left = self.fed - self.taken
        if self.pending is not None or not left or self.real.exception() is not None:
            self.both("read", n)
            return
        data = self.loop.run_until_complete(self.ours.read(n))
        assert len(data) == min(n, left) or not {self.taken, self.taken + len(data)}.isdisjoint(self.large)
        assert self.loop.run_until_complete(self.real.read(len(data))) == data != b""
        self.taken += len(data)

    @rule()
    def read_nothing(self):
        self.both("read", 0)

    @precondition(lambda self: self.eof)
    @rule()
    def read_all(self):
        self.both("read", -1)

    @rule(n=st.sampled_from([-1, 0, 1, 5, 40, WHOLE, 15_000]))
    def readexactly(self, n):
        self.both("readexactly", n)

    @rule(separator=SEPARATORS)
    def readuntil(self, separator):
        self.both("readuntil", separator)

    @rule()
    def readline(self):
        self.both("readline")

    @rule()
    def iterate(self):
        self.both("__anext__")

    @precondition(lambda self: self.pending is not None)
    @rule()
    def cancel(self):
        for task in self.pending[0]:
            task.cancel()
        self.settle()
        assert self.pending is None

    @rule()
    def look(self):
        assert describe(self.ours) == describe(self.real)

    @invariant()
    def same(self):
        if not hasattr(self, "real"):
            return
        assert self.ours.at_eof() == self.real.at_eof()
        assert self.ours.exception() is self.real.exception()
        assert self.valves[0].calls == self.valves[1].calls
        assert len(self.ours._buffer) + sum(map(len, self.ours._pieces)) == self.fed - self.taken
        assert self.ours._pieces_size == sum(map(len, self.ours._pieces))
        assert len(self.ours._pieces) <= PIECES_MAX


async def call(reader, name, *arguments):
    return await getattr(reader, name)(*arguments)


def outcome(task):
    if task.cancelled():
        return "cancelled", None
    error = task.exception()
    if error is None:
        return "value", task.result()
    return "error", (type(error), str(error), error.args, getattr(error, "partial", None), getattr(error, "consumed", None))


def describe(reader):
    return re.sub(r" at 0x[0-9a-f]+", "", repr(reader))


Twins.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTwins = Twins.TestCase


def test_a_large_piece_is_handed_over_without_a_copy():
    async def program():
        reader = SegmentReader(1 << 20)
        pieces = [bytes([number]) * 60_000 for number in range(5)]
        for piece in pieces:
            reader.feed_data(piece)
        for piece in pieces:
            assert await reader.read(65536) is piece

    asyncio.run(program())


def test_small_pieces_are_joined_up_to_a_large_one():
    async def program():
        reader = SegmentReader(1 << 20)
        for piece in (b"a" * 10, b"b" * 10, b"c" * WHOLE, b"d" * 10, b"e" * 10):
            reader.feed_data(piece)
        assert await reader.read(5) == b"a" * 5
        assert await reader.read(65536) == b"a" * 5 + b"b" * 10
        assert await reader.read(65536) == b"c" * WHOLE
        assert await reader.read(15) == b"d" * 10 + b"e" * 5
        assert await reader.read(65536) == b"e" * 5

    asyncio.run(program())


def test_what_wakes_a_reader_may_be_several_pieces():
    async def program():
        reader = SegmentReader(1 << 20)
        reading = asyncio.ensure_future(reader.read(65536))
        await asyncio.sleep(0)
        for piece in (b"a" * WHOLE, b"b" * WHOLE, b"c"):
            reader.feed_data(piece)
        assert await reading == b"a" * WHOLE
        assert await reader.read(65536) == b"b" * WHOLE
        assert await reader.read(65536) == b"c"

    asyncio.run(program())


def test_the_end_is_told_only_when_all_was_read():
    async def program():
        reader = SegmentReader(100)
        reader.feed_data(b"last")
        reader.feed_eof()
        assert not reader.at_eof()
        assert await reader.read(100) == b"last"
        assert reader.at_eof() and await reader.read(100) == b""

    asyncio.run(program())


def test_reading_pauses_above_twice_the_limit_and_resumes_at_it():
    async def program():
        reader, valve = SegmentReader(10), Valve(True)
        reader.set_transport(valve)
        reader.feed_data(b"x" * 20)
        assert valve.calls == []
        reader.feed_data(b"x")
        assert valve.calls == ["pause"]
        assert await reader.read(10) == b"x" * 10 and valve.calls == ["pause"]
        assert await reader.read(1) == b"x" and valve.calls == ["pause", "resume"]

    asyncio.run(program())
