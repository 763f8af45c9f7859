"""The daemon: opens the interface, gives root up, serves until it is told to end, and drains.

SIGTERM or SIGINT ends it in peace: nothing new is accepted, what is open may go on for the drain timeout; a second signal cuts
that short. Times are seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING

from tunstack.aio import Endpoint
from tunstack.aio.neighbours import Inbox
from tunstack.daemon import algorithm, sysctls
from tunstack.daemon.collector import Collector
from tunstack.daemon.config import ServeConfig
from tunstack.daemon.control import Control, for_interface
from tunstack.daemon.errors import UserError
from tunstack.daemon.host import give_up_root, loop_factory, open_device
from tunstack.daemon.keys import ServeKeys
from tunstack.daemon.linkserve import ServeLink
from tunstack.daemon.notify import notify
from tunstack.daemon.services import Services
from tunstack.daemon.status import by_name, resident_memory, version
from tunstack.daemon.tree import Tree
from tunstack.daemon.worker import HURRY, InterfaceGone, Seat
from tunstack.device.tun import TunDevice
from tunstack.engine import BACKEND, Listener, format_address
from tunstack.engine.state import ESTABLISHED
from tunstack.engine.syncookie import AGE_MAX, PERIOD
from tunstack.inspect.census import Work, count, finish

if TYPE_CHECKING:
    from tunstack.daemon.metrics import Metrics

log = logging.getLogger(__name__)

FASTOPEN_QUEUE = 256  # connections by Fast Open that wait for their handshake's end, a service at most


def serve(config: ServeConfig, reread: Callable[[], ServeConfig] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, with one process; UserError if that cannot be, OSError if the interface goes away meanwhile.

    `reread` reads the configuration again, for SIGHUP.
    """
    logging.basicConfig(level=config.log_level.upper(), format="tunstack: %(levelname)s: %(message)s", stream=sys.stderr)
    factory = loop_factory(config.loop)
    congestion = algorithm.prepare(config.congestion)
    device = open_device(config.interface, config.sysctl)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(Daemon(config, device, reread, congestion).run())
    finally:
        device.close()


class Daemon:
    """One run of `tunstack serve`. It does not own the device."""

    def __init__(
        self,
        config: ServeConfig,
        device: TunDevice,
        reread: Callable[[], ServeConfig] | None = None,
        congestion: algorithm.Prepared | None = None,
        seat: Seat | None = None,
        tree: Tree | None = None,
    ) -> None:
        """`seat`: this is one worker of several; its supervisor has given root up already, and opened the `tree`."""
        self._config = config
        self._device = device
        self._reread = reread
        self._congestion = congestion
        self._link = None if config.link is None else ServeLink(device, config.link)
        self._started = time.monotonic()
        self._keys: ServeKeys | None = None
        self._seat = seat
        self._tree = tree
        self._endpoint: Endpoint | None = None
        self._control: Control | None = None
        self._metrics: Metrics | None = None
        self._signals = 0
        self._told = asyncio.Event()  # to end
        self._hurried = asyncio.Event()  # to end at once

    async def run(self) -> None:
        """Serve until told to end."""
        if self._seat is not None:
            await self._serve(Services(self._config.ports, self._tree, self._config.http_upload, self.status))
            return
        try:
            # With the rights that we still have: the modules may be where only root can read them.
            self._tree = open_tree(self._config)
            services = Services(self._config.ports, self._tree, self._config.http_upload, self.status)
            self._control = for_interface(self._config.control, self._device.name)
            if self._config.metrics is not None:
                from tunstack.daemon.metrics import Metrics

                self._metrics = Metrics(*self._config.metrics)
            give_up_root(self._config.user)
            check_access(self._tree, self._config)
            await self._serve(services)
        finally:
            if self._control is not None:
                self._control.close()
            if self._metrics is not None:
                await self._metrics.close()
            if self._tree is not None:
                self._tree.close()

    async def _serve(self, services: Services) -> None:
        loop = asyncio.get_running_loop()
        self._handle_signals(loop)
        addresses = [str(address) for address in self._config.interface.addresses]
        if self._link is not None or self._reread is not None:  # who has no file has nothing to read again: SIGHUP ends it
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        device = self._device if self._link is None else self._link.device
        seat = self._seat
        secret = None if seat is None else seat.secret
        endpoint = self._endpoint = Endpoint(device, addresses, sysctl=sysctls.build(self._config.sysctl), secret=secret)
        if self._congestion is not None:
            try:
                self._congestion.use(endpoint.stack)
            except UserError:
                endpoint.close()
                raise
            endpoint.stack.on_algorithm_failure = self._on_algorithm_failure
        endpoint.labels = {port: name for name, port in self._config.ports.items()}
        endpoint.stack.on_flood = self._on_flood
        inbox = None
        if seat is not None:
            for name, text in seat.changed.items():
                endpoint.sysctl.set(name, text)
            inbox = Inbox(endpoint, seat.handover)
        await endpoint.start()
        self._keys = ServeKeys(endpoint)
        self._keys.use(self._config.keys)
        collector = Collector(lambda: len(endpoint.stack.flows))
        try:
            await services.start(endpoint, addresses)
            for listener in endpoint.stack.listeners:  # in force while net.ipv4.tcp_fastopen has bit 2
                listener.set_option("fastopen", FASTOPEN_QUEUE)
            collector.start()
            if self._control is not None:
                await self._control.start(endpoint, self.status)
            if self._metrics is not None:
                from tunstack.daemon.metrics import of_endpoint

                await self._metrics.start(of_endpoint(endpoint))
            if seat is None or inbox is None:
                announce(self.ready_line())
            else:
                if seat.has_predecessor:
                    expect_cookies(endpoint)
                inbox.start()
                await seat.door.start(endpoint, self.status)
                seat.door.report({"ready": self.ready_line()})
            await self._until_told(endpoint)
            if seat is None:
                notify("STOPPING=1")
            await self._drain(endpoint, services)
        finally:
            if seat is not None and inbox is not None:
                seat.door.close()
                inbox.close()
            collector.stop()
            endpoint.close()
            await endpoint.wait_closed()

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """SIGTERM ends us in peace; a second one hurries us, or, where we have a supervisor who hears it too, HURRY does."""
        if self._seat is None:
            loop.add_signal_handler(signal.SIGTERM, self._on_signal)
            loop.add_signal_handler(signal.SIGINT, self._on_signal)
        else:
            loop.add_signal_handler(signal.SIGTERM, self._told.set)
            loop.add_signal_handler(HURRY, self._hurried.set)

    def ready_line(self) -> str:
        """Say what is served, and where."""
        device = self._device
        services = ", ".join(f"{name} {port}" for name, port in self._config.ports.items()) or "no services"
        offload = "on" if device.offload else "off"
        addresses = " ".join(str(address) for address in self._config.interface.addresses)
        link = "" if self._link is None else f", {self._link}"
        workers = "" if self._seat is None else f", {self._seat.count} workers"
        details = f"mtu {device.mtu}, offload {offload}, {BACKEND}{link}{workers}"
        return f"tunstack: serving on {addresses} via {device.name} ({details}): {services}"

    def status(self) -> Work[Mapping[str, object]]:
        """Work out what `/status` says."""
        assert self._endpoint is not None
        stack = self._endpoint.stack
        census = yield from count(stack)
        states = by_name(census.connections)
        return {
            "version": version(),
            "uptime_s": round(time.monotonic() - self._started, 3),
            "backend": BACKEND,
            "loop": self._config.loop,
            "interface": {
                "name": self._device.name,
                "host_address": str(self._device.host_address),
                "addresses": [str(address) for address in self._config.interface.addresses],
                "mtu": self._device.mtu,
                "offload": self._device.offload,
            },
            "worker": None if self._seat is None else {"number": self._seat.index + 1, "of": self._seat.count},  # whose numbers these are
            "link": None if self._link is None else self._link.status(),
            "services": self._config.ports,
            "connections": {"total": sum(states.values()), **states},
            "congestion": {
                "default": stack.sysctl.tcp_congestion_control,
                "available": list(stack.algorithms),
                "connections": dict(sorted(census.algorithms.items())),
            },
            "counters": stack.read_counters(),
            "memory": {"resident_octets": resident_memory()},
        }

    def _on_hangup(self) -> None:
        """Take the link and the keys that the file says now; a mistake in it changes nothing."""
        if self._reread is None:
            log.warning("SIGHUP: there is no --config file to read link and keys from")
            return
        try:
            config = self._reread()
        except UserError as error:
            for message in error.messages:
                log.warning("SIGHUP: %s", message)
            return
        if self._link is not None:
            self._link.change(config.link)
            log.info("SIGHUP: now %s", self._link)
        if self._keys is not None:
            changed = self._keys.use(config.keys)
            if config.keys or changed or self._link is None:
                log.info("SIGHUP: now %d keys, %d of them new or gone", len(config.keys), changed)

    def _on_algorithm_failure(self, name: str, error: Exception) -> None:
        """Tell the first time that the user's congestion control raises; the counter has them all."""
        assert self._congestion is not None
        log.warning("congestion control %s failed, and reno took its place: %s", name, self._congestion.explain(error))

    def _on_flood(self, listener: Listener) -> None:
        """Tell once of each port whose SYN queue is full; the counters have the rest."""
        assert self._endpoint is not None
        answer = "sending cookies" if self._endpoint.stack.sysctl.tcp_syncookies else "dropping requests"
        log.warning("possible SYN flooding on port %s:%d: %s", format_address(listener.address), listener.port, answer)

    def _on_signal(self) -> None:
        self._signals += 1
        (self._told if self._signals == 1 else self._hurried).set()

    async def _until_told(self, endpoint: Endpoint) -> None:
        """Wait for the first signal; OSError if the interface goes away before."""
        await _first(self._told.wait, endpoint.wait_closed)
        if endpoint.error is not None:
            raise InterfaceGone(f"interface {self._device.name} is gone: {endpoint.error.strerror}") from endpoint.error

    async def _drain(self, endpoint: Endpoint, services: Services) -> None:
        """Let what is open come to an end, within the drain timeout."""
        deadline = time.monotonic() + self._config.drain_timeout
        services.drain()
        log.info("ending; connections that are open: %d", finish(count(endpoint.stack)).connections[ESTABLISHED])
        finished = await _first(services.wait_closed, self._hurried.wait, endpoint.wait_closed, timeout=self._config.drain_timeout)
        if finished and not self._hurried.is_set():
            # All is handed to the stack; give the peers the time to acknowledge it.
            left = max(0.0, deadline - time.monotonic())
            await _first(lambda: endpoint.shutdown(left), self._hurried.wait)


def announce(line: str) -> None:
    """Tell who started us that we serve."""
    sys.stdout.write(line + "\n")  # in one piece, for whoever reads it from a pipe
    sys.stdout.flush()
    notify("READY=1")


def expect_cookies(endpoint: Endpoint) -> None:
    """Have listeners look at the cookies that a worker has sent in whose place we are now: the secret is the same."""
    for listener in endpoint.stack.listeners:
        listener.group.cookies_until = endpoint.now() + AGE_MAX * PERIOD


async def _first(*waits: Callable[[], Coroutine[object, object, object]], timeout: float | None = None) -> bool:
    """Wait until one of several coroutines is done, and cancel the others; False if none was in time."""
    tasks = [asyncio.create_task(wait()) for wait in waits]
    try:
        done, _pending = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    return bool(done)


def open_tree(config: ServeConfig) -> Tree | None:
    """Open the directory that HTTP serves, if it does; UserError."""
    path = config.http_root
    if path is None or "http" not in config.ports:
        return None
    try:
        return Tree(path)
    except OSError as error:
        raise UserError(f"the HTTP root {path} cannot be opened: {error.strerror}") from error


def check_access(tree: Tree | None, config: ServeConfig) -> None:
    """See whether the user that we have become may serve the files; UserError if not."""
    if tree is None:
        return
    try:
        tree.check_access(config.http_upload)
    except OSError as error:
        what = "read and written" if config.http_upload else "read"
        user = pwd.getpwuid(os.geteuid()).pw_name
        raise UserError(
            f"the HTTP root {config.http_root} cannot be {what} by user {user} ({error.strerror}): change its mode or owner,"
            " or choose another --user"
        ) from error
