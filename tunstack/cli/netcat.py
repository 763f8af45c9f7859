"""Netcat at work: the interface, the endpoint on it, one conversation after another.

The loop is asyncio's own: uvloop makes the descriptors that it polls non-blocking, also those that we share with others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence

from tunstack.aio import Endpoint, SocketOptions
from tunstack.cli.nc import NetcatConfig
from tunstack.cli.pump import Input, Output
from tunstack.cli.relay import Relay, RelayOptions
from tunstack.daemon import algorithm, sysctls
from tunstack.daemon.host import give_up_root, open_first

# Seconds that the end waits for the peer to acknowledge the last octets: our TCP ends with the process.
LINGER = 60.0
LINGER_AFTER_SIGNAL = 1.0
FASTOPEN_QUEUE = 16  # connections by Fast Open that wait for their handshake's end


def run(config: NetcatConfig) -> int:
    """Run to the end and return the exit status."""
    congestion = algorithm.prepare(config.congestion)
    device, interface = open_first(config.interfaces, config.sysctl)
    try:
        give_up_root(config.user)
        addresses = [str(address) for address in interface.addresses]
        endpoint = Endpoint(device, addresses, sysctl=sysctls.build(config.sysctl))
        if congestion is not None:
            congestion.use(endpoint.stack)
            endpoint.stack.on_algorithm_failure = lambda name, error: _say(
                f"tunstack: nc: congestion control {name} failed, and reno took its place: {congestion.explain(error)}"
            )
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(Netcat(config, addresses).run(endpoint))
    finally:
        device.close()


class Netcat:
    """One run of `tunstack nc`."""

    def __init__(self, config: NetcatConfig, addresses: Sequence[str]) -> None:
        self._config = config
        self._address = str(config.source) if config.source else addresses[0]
        self._options = RelayOptions(
            is_server=config.host is None,
            shutdown_at_eof=config.shutdown_at_eof,
            quit_after=config.quit_after,
            idle_timeout=config.timeout,
        )
        self._signal = 0  # the one that ended us

    async def run(self, endpoint: Endpoint) -> int:
        """Converse until the end, then see that the peer has everything."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number, task)
        await endpoint.start()
        try:
            input_ = Input(sys.stdin.fileno(), loop) if self._config.read_input else None
            output = Output(sys.stdout.fileno(), loop)
            converse = self._serve if self._config.host is None else self._connect
            status = await converse(endpoint, input_, output)
            deadline = loop.time() + LINGER
            await endpoint.shutdown(LINGER)
        except asyncio.CancelledError:
            await endpoint.shutdown(LINGER_AFTER_SIGNAL)
            if self._signal:
                return 128 + self._signal
            raise
        except BaseException:
            endpoint.close()
            raise
        if loop.time() >= deadline and not status:
            return _fail("the peer has not acknowledged all that was sent")
        return status

    def _on_signal(self, number: int, task: asyncio.Task[int]) -> None:
        """End, also while we wait for the peer's last acknowledgement (ssh does that to its ProxyCommand); once is enough."""
        if not self._signal:
            self._signal = number
            task.cancel()

    async def _connect(self, endpoint: Endpoint, input_: Input | None, output: Output) -> int:
        config = self._config
        assert config.host is not None
        where = f"{config.host} port {config.port} (tcp)"
        try:
            ends = await asyncio.get_running_loop().getaddrinfo(config.host, config.port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            return _fail(f"{config.host}: {error.strerror}")

        def hold(relay: Relay) -> None:
            """Let the conversation wait until the connection has been announced."""

        # A SYN that waits for input would never leave where none is read.
        options = SocketOptions(nodelay=True, fastopen_connect=config.fastopen and config.read_input and not config.only_connect)
        error_text = ""
        for end in ends:
            try:
                async with asyncio.timeout(config.timeout):
                    transport, relay = await endpoint.create_connection(
                        lambda: Relay(input_, output, self._options, hold),
                        str(end[4][0]),
                        config.port,
                        local_addr=(self._address, config.source_port),
                        options=options,
                    )
            except OSError as error:
                error_text = "Connection timed out" if isinstance(error, TimeoutError) else _reason(error)
                continue
            if config.verbose:
                _say(f"Connection to {config.host} {config.port} port [tcp/*] succeeded!")
            if config.only_connect:
                transport.close()
                return 0
            relay.begin()
            return _finish(await relay.finished, await _drained(output))
        return _fail(f"connect to {where} failed: {error_text}")

    async def _serve(self, endpoint: Endpoint, input_: Input | None, output: Output) -> int:
        """Listen; the conversations are one after another, as they came."""
        waiting: asyncio.Queue[Relay] = asyncio.Queue()
        server = await endpoint.create_server(
            lambda: Relay(input_, output, self._options, waiting.put_nowait),
            self._address,
            self._config.port,
            backlog=128 if self._config.keep_listening else 1,
            options=SocketOptions(nodelay=True, fastopen=FASTOPEN_QUEUE if self._config.fastopen else 0),
        )
        if self._config.verbose:
            _say(f"Listening on {self._address} {server.sockets[0].getsockname()[1]}")
        while True:
            relay = await waiting.get()
            if not self._config.keep_listening:
                server.close()
                while not waiting.empty():
                    waiting.get_nowait().transport.abort()
            if self._config.verbose:
                host, port = relay.transport.get_extra_info("peername")
                _say(f"Connection received on {host} {port}")
            relay.begin()
            status = _finish(await relay.finished, await _drained(output))
            if not self._config.keep_listening or status:
                return status


async def _drained(output: Output) -> OSError | None:
    await output.drain()
    return output.error


def _finish(error: OSError | None, output_error: OSError | None) -> int:
    """Return the exit status for how a conversation ended; nc has 0 for a reset too, but what is lost should be known."""
    if isinstance(output_error, BrokenPipeError):
        return 1  # as silent as SIGPIPE
    if output_error is not None:
        return _fail(f"standard output: {_reason(output_error)}")
    return 0 if error is None else _fail(_reason(error))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _fail(message: str) -> int:
    print(f"tunstack: nc: {message}", file=sys.stderr)
    return 1


def _say(message: str) -> None:
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)
