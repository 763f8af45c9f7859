"""The control socket's protocol, in virtual time (M-60, M-62)."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunstack import Endpoint, memory_pair
from tunstack.daemon import control as control_module
from tunstack.daemon.control import IDLE_TIMEOUT, LINE_MAX, RECORDS_A_TURN, TURN, Client, Control
from tunstack.daemon.methods import METHODS, PROTOCOL, Context, Failure, Method, Params, Peer
from tunstack.sim.loop import run

PEER = Peer(4711, 0)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let work take no time."""
    monkeypatch.setattr(control_module, "perf_counter", lambda: 0.0)


class Wire(asyncio.Transport):
    """A transport that keeps what is written. `is_full`: the client reads nothing, so the buffer fills with the next write."""

    def __init__(self) -> None:
        super().__init__()
        self.output = bytearray()
        self.is_closed = False
        self.is_reading = True
        self.is_full = False
        self.client: Client

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.output += data
        if self.is_full:
            self.client.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == LINE_MAX

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_soon(self.client.connection_lost, None)

    abort = close

    def answers(self) -> list[dict[str, Any]]:
        """Take the answers so far."""
        assert not self.output or self.output.endswith(b"\n")
        taken = [json.loads(line) for line in self.output.splitlines()]
        self.output.clear()
        return taken


class Bench:
    """A control without a socket over an endpoint on memory, and clients of it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.status: dict[str, object] = {"version": "x"}

        def call(name: str, method: Method, params: Params, peer: Peer) -> object:
            return method.handler(Context(endpoint, lambda: self.status, peer), params)

        self.control = SimpleNamespace(clients=set(), call=call)

    def connect(self, refusal: Failure | None = None) -> Wire:
        wire = Wire()
        wire.client = Client(cast("Control", self.control), PEER, refusal)
        wire.client.connection_made(wire)
        return wire

    async def ask(self, method: object, params: object = None, **others: object) -> dict[str, Any]:
        wire = self.connect()
        request = {"version": PROTOCOL, "id": 1, "method": method, **({} if params is None else {"params": params}), **others}
        wire.client.data_received(json.dumps(request).encode() + b"\n")
        await settle()
        (answer,) = wire.answers()
        wire.close()
        await settle()
        return answer


async def settle() -> None:
    """Let everything happen that is ready to."""
    for _ in range(20):
        await asyncio.sleep(0)


def bench_test(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def wrapped() -> None:
        async def main() -> None:
            async with memory_pair() as (endpoint, _other):
                bench = Bench(endpoint)
                await test(bench)

        run(main())

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


@bench_test
async def test_knobs_are_read_and_set_and_the_change_counts(bench: Bench) -> None:
    """M-62."""
    answer = await bench.ask("sysctl.get", {"name": "net/ipv4/tcp_rmem"})
    assert answer["version"] == PROTOCOL and answer["id"] == 1
    assert answer["result"]["name"] == "net.ipv4.tcp_rmem" and answer["result"]["value"] == "4096\t131072\t6291456"
    answer = await bench.ask("sysctl.set", {"name": "net.ipv4.tcp_fin_timeout", "value": "15"})
    assert answer["result"] == {"name": "net.ipv4.tcp_fin_timeout", "value": "15", "old": "60"}
    assert bench.endpoint.stack.sysctl.tcp_fin_timeout == 15
    assert (await bench.ask("counters"))["result"] == bench.endpoint.stack.counters.as_dict()
    assert (await bench.ask("status"))["result"] == {"version": "x"}
    assert (await bench.ask("version"))["result"]["protocol"] == PROTOCOL


def test_a_change_is_logged_with_who_made_it(caplog: pytest.LogCaptureFixture) -> None:
    """M-62."""
    caplog.set_level(logging.INFO)

    @bench_test
    async def scenario(bench: Bench) -> None:
        await bench.ask("sysctl.set", {"name": "net.ipv4.tcp_wmem", "value": "4096 16384 65536"})

    scenario()
    assert [record.getMessage() for record in caplog.records] == [
        "net.ipv4.tcp_wmem = 4096 16384 65536 (was 4096 16384 4194304), set by pid 4711, uid 0"
    ]


@bench_test
async def test_errors_have_linux_errno_or_a_code_of_the_protocol(bench: Bench) -> None:
    """M-62."""
    for params, code, message in (
        ({"name": "net.ipv4.tcp_sak", "value": "1"}, "ENOENT", "there is no such knob (did you mean tcp_sack?)"),
        ({"name": "net.ipv4.tcp_sack", "value": "5"}, "EINVAL", "'5' is neither 0 nor 1"),
        ({"name": "net.ipv4.tcp_available_congestion_control", "value": "x"}, "EACCES", None),
        ({"name": "net.ipv4.tcp_congestion_control", "value": "x"}, "ENOENT", "there is no 'x'; there is bbr, cubic, reno, tahoe"),
        ({"name": "net.ipv4.tcp_sack"}, "params", "the parameter 'value' is missing"),
        ({"name": "net.ipv4.tcp_sack", "value": 1}, "params", "the parameter 'value' must be of type str"),
        ({"name": "net.ipv4.tcp_sack", "value": "1", "x": 1}, "params", "there is no parameter 'x'; there is name, value"),
        ([], "params", "params must be an object"),
    ):
        error = (await bench.ask("sysctl.set", params))["error"]
        assert error["code"] == code and message in (None, error["message"])
    assert bench.endpoint.stack.sysctl.tcp_sack is True


@bench_test
async def test_what_is_no_request_is_answered_with_an_error_and_the_next_is_served(bench: Bench) -> None:
    wire = bench.connect()
    for line, number, code in (
        (b"garbage", None, "parse"),
        (b"\xff\xfe\x00", None, "parse"),
        (b"[" * 60_000, None, "parse"),
        (b'{"id": ' + b"9" * 5000 + b"}", None, "parse"),
        (b"[1]", None, "request"),
        (b"{}", None, "version"),
        (b'{"version": 2, "id": "a", "method": "version"}', "a", "version"),
        (b'{"version": 1, "id": true, "method": "version"}', None, "request"),
        (b'{"version": 1, "id": [1], "method": "version"}', None, "request"),
        (b'{"version": 1, "id": "' + b"a" * 65 + b'", "method": "version"}', None, "request"),
        (b'{"version": 1, "id": 18446744073709551616, "method": "version"}', None, "request"),
        (b'{"version": 1, "id": 3}', 3, "request"),
        (b'{"version": 1, "id": 3, "method": ["version"]}', 3, "request"),
        (b'{"version": 1, "id": 3, "method": "__class__"}', 3, "method"),
        (b'{"version": 1, "id": 3, "method": "version", "params": null}', 3, "params"),
    ):
        wire.client.data_received(line + b"\n")
        await settle()
        (answer,) = wire.answers()
        assert (answer["id"], answer["error"]["code"]) == (number, code), line[:60]
    wire.client.data_received(b'\n \n{"version": 1, "id": 4, "method": "version"}\n')
    await settle()
    (answer,) = wire.answers()
    assert answer["id"] == 4 and "result" in answer and not wire.is_closed


@bench_test
async def test_a_line_that_is_too_long_ends_the_connection(bench: Bench) -> None:
    wire = bench.connect()
    wire.client.data_received(b"x" * (LINE_MAX - 1))
    await settle()
    assert not wire.is_closed and not wire.answers()
    wire.client.data_received(b"xx")
    await settle()
    assert wire.answers()[0]["error"]["message"] == "a request has at most 65536 octets"
    assert wire.is_closed and not bench.control.clients


@bench_test
async def test_requests_that_come_together_are_answered_in_order_and_reading_is_held_back(bench: Bench) -> None:
    wire = bench.connect()
    one = b'{"version": 1, "id": %d, "method": "sysctl.get", "params": {"name": "net.ipv4.tcp_sack"}}\n'
    wire.client.data_received(b"".join(one % number for number in range(1000)))
    assert not wire.is_reading
    for _ in range(1100):
        await asyncio.sleep(0)
    assert [answer["id"] for answer in wire.answers()] == list(range(1000))
    assert wire.is_reading


@bench_test
async def test_after_the_end_of_its_requests_a_client_has_its_answers(bench: Bench) -> None:
    wire = bench.connect()
    wire.client.data_received(b'{"version": 1, "id": 1, "method": "sysctl.list"}\n{"version": 1, "id": 2, "method": "version"}')
    assert wire.client.eof_received()
    await settle()
    answers = wire.answers()
    assert answers[-1]["id"] == 2 and "result" in answers[-1] and wire.is_closed


@bench_test
async def test_an_idle_client_is_given_up(bench: Bench) -> None:
    wire = bench.connect()
    await asyncio.sleep(IDLE_TIMEOUT - 1)
    wire.client.data_received(b'{"version": 1, "id": 1, "method": "version"}\n')
    await asyncio.sleep(IDLE_TIMEOUT - 1)
    wire.client.data_received(b'{"version": 1,')  # half a request is none
    assert not wire.is_closed
    await asyncio.sleep(2)
    assert wire.is_closed and not bench.control.clients


@bench_test
async def test_who_is_refused_hears_why(bench: Bench) -> None:
    wire = bench.connect(Failure("refused", "only root"))
    await settle()
    assert wire.answers() == [{"version": PROTOCOL, "id": None, "error": {"code": "refused", "message": "only root"}}]
    assert wire.is_closed and not bench.control.clients
    wire.client.data_received(b'{"version": 1, "id": 1, "method": "version"}\n')
    await settle()
    assert not wire.output


# Long answers.


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Add methods with long answers; return how far the last one was asked."""
    asked: list[int] = []

    def numbers(context: Context, params: Params) -> Iterator[dict[str, int] | None]:
        for number in range(params["count"]):
            asked.append(number)
            if params.get("fail") == number:
                raise ZeroDivisionError("a secret")
            yield None if number % 100 >= params.get("of", 100) else {"number": number}

    def wrong(context: Context, params: Params) -> object:
        raise OSError(errno.ESRCH, "nobody")

    added = {
        "numbers": Method("numbers", numbers, {"count": int, "of?": int, "fail?": int}),
        "wrong": Method("raises", wrong),
        "odd": Method("returns what JSON has not", lambda context, params: {1, 2}),
    }
    monkeypatch.setattr(control_module, "METHODS", {**METHODS, **added})
    return asked


def test_a_long_answer_comes_in_pieces_with_turns_of_the_loop_between(many: list[int]) -> None:
    """M-60: 100,000 sockets hold nobody up."""

    @bench_test
    async def scenario(bench: Bench) -> None:
        wire = bench.connect()
        wire.client.data_received(b'{"version": 1, "id": 1, "method": "numbers", "params": {"count": 100000}}\n')
        worst = before = 0
        found: list[int] = []
        while not wire.output.endswith(b'"result":{"records":100000}}\n'):
            await asyncio.sleep(0)
            worst, before = max(worst, len(many) - before), len(many)
            assert all(len(line) <= 64 * 1024 for line in wire.output.splitlines())
        assert worst == RECORDS_A_TURN
        for answer in wire.answers():
            found += [record["number"] for record in answer.get("part", ())]
        assert found == list(range(100_000))

    scenario()


def test_a_turn_ends_when_its_time_is_up(many: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """M-60: records that are dear come fewer at a time."""
    monkeypatch.setattr(control_module, "perf_counter", lambda: len(many) * TURN / 3)

    @bench_test
    async def scenario(bench: Bench) -> None:
        wire = bench.connect()
        wire.client.data_received(b'{"version": 1, "id": 1, "method": "numbers", "params": {"count": 7}}\n')
        await settle()
        assert [len(answer.get("part", ())) for answer in wire.answers()] == [3, 3, 1, 0]

    scenario()


def test_records_that_are_passed_over_are_work_too(many: list[int]) -> None:
    """M-60: a filter that nothing passes does not hold the loop."""

    @bench_test
    async def scenario(bench: Bench) -> None:
        wire = bench.connect()
        wire.client.data_received(b'{"version": 1, "id": 1, "method": "numbers", "params": {"count": 10000, "of": 0}}\n')
        await settle()
        assert len(many) <= 20 * RECORDS_A_TURN and not wire.output
        for _ in range(10000 // RECORDS_A_TURN):
            await asyncio.sleep(0)
        assert wire.answers() == [{"version": PROTOCOL, "id": 1, "result": {"records": 0}}]

    scenario()


def test_a_client_that_reads_nothing_gets_nothing_more_and_is_given_up(many: list[int]) -> None:
    @bench_test
    async def scenario(bench: Bench) -> None:
        wire = bench.connect()
        wire.is_full = True
        wire.client.data_received(b'{"version": 1, "id": 1, "method": "numbers", "params": {"count": 10000}}\n')
        await settle()
        assert len(many) == RECORDS_A_TURN
        await asyncio.sleep(IDLE_TIMEOUT - 1)
        wire.client.resume_writing()  # it read some
        await settle()
        assert len(many) == 2 * RECORDS_A_TURN
        await asyncio.sleep(IDLE_TIMEOUT + 1)
        assert wire.is_closed and len(many) == 2 * RECORDS_A_TURN

    scenario()


def test_a_mistake_of_ours_is_logged_and_shows_the_client_nothing(many: list[int], caplog: pytest.LogCaptureFixture) -> None:
    @bench_test
    async def scenario(bench: Bench) -> None:
        wire = bench.connect()
        wire.client.data_received(b'{"version": 1, "id": 1, "method": "numbers", "params": {"count": 100, "fail": 70}}\n')
        wire.client.data_received(b'{"version": 1, "id": 2, "method": "odd"}\n{"version": 1, "id": 3, "method": "wrong"}\n')
        await settle()
        part, *errors = wire.answers()
        assert len(part["part"]) == RECORDS_A_TURN
        assert [(answer["id"], answer["error"]["code"]) for answer in errors] == [(1, "internal"), (2, "internal"), (3, "ESRCH")]
        assert "secret" not in str(errors) and errors[2]["error"]["message"] == "nobody"

    scenario()
    assert len(caplog.records) == 2 and caplog.records[0].exc_info


def test_every_method_says_what_it_does() -> None:
    assert all(method.doc and "\n" not in method.doc for method in METHODS.values())
