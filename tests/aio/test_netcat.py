"""`tunstack nc`'s conversation and its descriptors, over two endpoints joined in memory."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from tunstack import Endpoint, memory_pair
from tunstack.cli.nc import NetcatConfig, parse
from tunstack.cli.netcat import Netcat
from tunstack.cli.pump import Input, Output, can_poll

OURS, PEER = "10.77.0.1", "10.77.0.2"
T = TypeVar("T")
DATA = random.Random(11).randbytes(2_000_000)


def run(main: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 30))


async def in_thread(call: Callable[[], T]) -> T:
    """Await a blocking call; unlike asyncio's own threads, one that hangs does not keep a failed test from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        result = call()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(done.set_result, result)

    threading.Thread(target=work, daemon=True).start()
    return await done


class Terminal:
    """A netcat with pipes for its standard input and output."""

    def __init__(self, endpoint: Endpoint, config: NetcatConfig, monkeypatch: pytest.MonkeyPatch, input_: int | None = None) -> None:
        self._output, theirs_out = os.pipe()
        theirs_in, self.input = os.pipe() if input_ is None else (input_, -1)
        self._theirs = [theirs_in, theirs_out]
        monkeypatch.setattr("sys.stdin", os.fdopen(theirs_in, "rb", closefd=False))
        monkeypatch.setattr("sys.stdout", os.fdopen(theirs_out, "wb", closefd=False))
        self._netcat = Netcat(config, [OURS])
        # An endpoint in memory runs already, and goes on after netcat.
        monkeypatch.setattr(endpoint, "start", nothing)
        monkeypatch.setattr(endpoint, "shutdown", nothing)
        self.task = asyncio.ensure_future(self._netcat.run(endpoint))
        self._written: asyncio.Task[None] | None = None

    def say(self, data: bytes, end: bool = True) -> None:
        """Write to its standard input, in the background."""

        def write() -> None:
            left = memoryview(data)
            with suppress(BrokenPipeError):
                while left:
                    left = left[os.write(self.input, left) :]
            if end:
                self.hang_up()

        self._written = asyncio.ensure_future(in_thread(write))

    def hang_up(self) -> None:
        """End its standard input."""
        if self.input >= 0:
            os.close(self.input)
            self.input = -1

    def stop_listening(self) -> None:
        """Close the reading end of its standard output."""
        os.close(self._output)
        self._output = -1

    async def heard(self) -> tuple[int, bytes]:
        """Return its exit status, and all that it wrote."""

        def read() -> bytes:
            with os.fdopen(self._output, "rb") as file:
                return file.read()

        reading = asyncio.ensure_future(in_thread(read))
        status = await self.task
        for descriptor in self._theirs:
            os.close(descriptor)
        if self._written is not None:
            await self._written
        self.hang_up()
        return status, await reading


async def nothing(*_arguments: object) -> None:
    """Stand in for a call that is of no concern."""


def config(*arguments: str) -> NetcatConfig:
    where = ["5000"] if "-l" in arguments else [PEER, "5000"]
    return replace(parse([*arguments, *where]), source=None)


async def accept(endpoint: Endpoint) -> asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    queue: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue.put_nowait((reader, writer))

    await endpoint.start_server(take, PEER, 5000)
    return queue


async def listening(peer: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a netcat that is about to listen."""
    while True:
        try:
            return await peer.open_connection(OURS, 5000)
        except ConnectionRefusedError:
            await asyncio.sleep(0)


def test_client_with_n_sends_its_fin_and_hears_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """M-51: half-close as `nc -N` has it."""

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config("-N"), monkeypatch)
            netcat.say(DATA)
            reader, writer = await queue.get()
            assert await reader.read() == DATA  # it ends: the FIN came
            writer.write(DATA[::-1])
            writer.close()
            assert await netcat.heard() == (0, DATA[::-1])

    run(main())


def test_client_without_n_stays_open_until_the_peer_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config(), monkeypatch)
            netcat.say(b"hello")
            reader, writer = await queue.get()
            assert await reader.readexactly(5) == b"hello"
            for _ in range(200):
                await asyncio.sleep(0)
            assert not reader.at_eof() and not netcat.task.done()
            writer.write(b"bye")
            writer.close()
            assert await netcat.heard() == (0, b"bye")
            assert await reader.read() == b""

    run(main())


def test_client_goes_on_sending_after_the_peers_fin(monkeypatch: pytest.MonkeyPatch) -> None:
    """M-51, the other way round: our input decides the end."""

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config(), monkeypatch)
            netcat.say(b"first", end=False)
            reader, writer = await queue.get()
            writer.write_eof()
            assert await reader.readexactly(5) == b"first"
            netcat.say(DATA)
            assert await reader.read() == DATA
            assert await netcat.heard() == (0, b"")

    run(main())


def test_both_directions_at_once_hold_back_for_a_slow_end(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: list[Output] = []

    def make(descriptor: int, loop: asyncio.AbstractEventLoop) -> Output:
        outputs.append(Output(descriptor, loop))
        return outputs[-1]

    monkeypatch.setattr("tunstack.cli.netcat.Output", make)

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config("-N"), monkeypatch)
            netcat.say(DATA)
            reader, writer = await queue.get()
            writer.write(DATA * 5)  # before anyone reads our output: the pipe and our buffers fill, then the window closes
            writer.write_eof()
            for _ in range(3000):
                await asyncio.sleep(0)
            assert 0 < outputs[0].size < 1_000_000
            (_status, heard), got = await asyncio.gather(netcat.heard(), reader.read())
            assert heard == DATA * 5 and got == DATA

    run(main())


@pytest.mark.parametrize("when", ["conversing", "lingering"])
def test_signal_ends_it_quietly(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], when: str) -> None:
    """ssh hangs up on its ProxyCommand while that waits for the last acknowledgement; a second signal changes nothing."""

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config("-N"), monkeypatch)
            lingers: list[float] = []

            async def shutdown(timeout: float = 0) -> None:
                if netcat.task.done():
                    return
                lingers.append(timeout)
                if len(lingers) == 1 and when == "lingering":
                    await asyncio.Event().wait()
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0)

            monkeypatch.setattr(ours, "shutdown", shutdown)
            _reader, writer = await queue.get()
            if when == "lingering":
                netcat.hang_up()
                writer.close()
                while not lingers:
                    await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGHUP)
            assert await netcat.heard() == (128 + signal.SIGHUP, b"")
            writer.close()

    run(main())
    assert capfd.readouterr().err == ""


def test_regular_file_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A regular file cannot be polled."""
    (tmp_path / "data").write_bytes(DATA)

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config("-N"), monkeypatch, os.open(tmp_path / "data", os.O_RDONLY))
            reader, writer = await queue.get()
            assert await reader.read() == DATA
            writer.close()
            assert await netcat.heard() == (0, b"")

    run(main())


def test_quit_after_the_end_of_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """-q 0: no waiting for the peer; -q implies -N."""

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config("-q", "0"), monkeypatch)
            netcat.say(DATA)
            reader, _writer = await queue.get()
            assert await reader.read() == DATA
            assert await netcat.heard() == (0, b"")

    run(main())


def test_refused_connection_is_told_with_status_1(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, _peer):
            assert await Terminal(ours, config(), monkeypatch).heard() == (1, b"")

    run(main())
    assert capfd.readouterr().err == f"tunstack: nc: connect to {PEER} port 5000 (tcp) failed: Connection refused\n"


def test_reset_is_told_with_status_1(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config(), monkeypatch)
            _reader, writer = await queue.get()
            writer.transport.abort()
            assert await netcat.heard() == (1, b"")

    run(main())
    assert capfd.readouterr().err == "tunstack: nc: Connection reset by peer\n"


def test_output_that_nobody_reads_ends_it_silently(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """`tunstack nc HOST 19 | head`."""

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config(), monkeypatch)
            _reader, writer = await queue.get()
            netcat.stop_listening()
            writer.write(DATA)
            assert await netcat.task == 1

    run(main())
    assert capfd.readouterr().err == ""


def test_z_only_sees_whether_the_port_is_open(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            netcat = Terminal(ours, config("-z", "-v"), monkeypatch)
            reader, _writer = await queue.get()
            assert await reader.read() == b""
            assert await netcat.heard() == (0, b"")

    run(main())
    assert capfd.readouterr().err == f"Connection to {PEER} 5000 port [tcp/*] succeeded!\n"


def test_server_ends_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard input stays open, as a terminal's does."""

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            netcat = Terminal(ours, config("-l"), monkeypatch)
            reader, writer = await listening(peer)
            writer.write(DATA)
            writer.write_eof()
            assert await netcat.heard() == (0, DATA)
            assert await reader.read() == b""

    run(main())


def test_server_sends_all_of_a_file_to_a_client_that_ended_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            netcat = Terminal(ours, config("-l"), monkeypatch, os.open(tmp_path / "data", os.O_RDONLY))
            reader, writer = await listening(peer)
            writer.write_eof()
            assert await reader.read() == DATA
            assert await netcat.heard() == (0, b"")

    run(main())


def test_server_takes_one_client_and_refuses_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            netcat = Terminal(ours, config("-l"), monkeypatch)
            _reader, writer = await listening(peer)
            writer.write(b"x")
            while not ours.stack.counters.TcpPassiveOpens or list(ours.stack.listeners):
                await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                await peer.open_connection(OURS, 5000)
            writer.close()
            assert await netcat.heard() == (0, b"x")

    run(main())


def test_server_with_k_serves_one_client_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            netcat = Terminal(ours, config("-l", "-k", "-d"), monkeypatch)
            reader, writer = await listening(peer)
            writer.write(b"one ")
            _reader, waiting = await peer.open_connection(OURS, 5000)  # is kept waiting, its data too
            waiting.write(b"two ")
            waiting.close()
            writer.write(b"uno ")
            writer.close()
            await reader.read()
            reader, writer = await peer.open_connection(OURS, 5000)
            writer.write(b"three")
            writer.close()
            assert await reader.read() == b""
            netcat.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await netcat.task
            assert os.read(netcat._output, 100) == b"one uno two three"

    run(main())


def test_idle_conversation_ends_after_w() -> None:
    """In virtual time."""
    from tunstack.cli.relay import Relay, RelayOptions
    from tunstack.sim import loop as sim

    class Sink:
        on_full = on_drained = on_error = None

        def write(self, data: bytes) -> None: ...

    async def main() -> None:
        async with memory_pair((OURS, PEER)) as (ours, peer):
            queue = await accept(peer)
            loop = asyncio.get_running_loop()
            options = RelayOptions(idle_timeout=10)
            _transport, relay = await ours.create_connection(
                lambda: Relay(None, Sink(), options, lambda relay: None),  # type: ignore[arg-type]
                PEER,
                5000,
            )
            begun = loop.time()
            relay.begin()
            _reader, writer = await queue.get()
            await asyncio.sleep(7)
            writer.write(b"still here")
            await relay.finished
            assert 17 <= loop.time() - begun < 18

    sim.run(main())


def test_descriptors_are_left_blocking(tmp_path: Path) -> None:
    """O_NONBLOCK belongs to the open file, which other processes have too."""

    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            got: list[bytes] = []
            ended = asyncio.get_running_loop().create_future()
            input_ = Input(right.fileno(), asyncio.get_running_loop())

            def take(data: bytes) -> None:
                got.append(data)
                if not data:
                    ended.set_result(None)

            input_.on_data = take
            output = Output(left.fileno(), asyncio.get_running_loop())
            for start in range(0, len(DATA), 50_000):
                output.write(DATA[start : start + 50_000])
            assert os.get_blocking(left.fileno())
            input_.resume()
            await output.drain()
            left.shutdown(socket.SHUT_WR)
            await ended
            assert b"".join(got) == DATA
            assert os.get_blocking(left.fileno()) and os.get_blocking(right.fileno())

    run(main())


def test_what_can_be_polled(tmp_path: Path) -> None:
    read, write = os.pipe()
    with open(tmp_path / "file", "wb") as file, open("/dev/null", "rb") as null:
        assert can_poll(read) and can_poll(write)
        assert not can_poll(file.fileno()) and not can_poll(null.fileno())
    os.close(read)
    os.close(write)
