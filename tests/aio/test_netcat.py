"""`tunstack nc`'s conversation, over two endpoints joined in memory."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from aio.terminal import DATA, OURS, PEER, Terminal, accept, config, listening, run

from tunstack import memory_pair
from tunstack.cli.pump import Output


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
