"""`tunstack serve --workers N`: the process that starts the workers, and speaks for all of them.

It opens the interface, with a queue for each worker, and gives root up; then it forks the workers. It keeps all queues open: while a worker
is missing its queue stays where it is, so that no other worker's flows move, and waits for the next one. It carries no frame itself.

A worker that dies is replaced, at once if it had served for STEADY, else later and later. One that cannot even start, before all have once
served, ends the program. Nothing is forked within the loop: `_watch` returns when a worker is due.

The control socket and the metrics are here, and join what the workers answer (joined.py). Times are seconds.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tunstack.daemon import algorithm
from tunstack.daemon.asking import Asked
from tunstack.daemon.config import ServeConfig
from tunstack.daemon.control import Control, for_interface
from tunstack.daemon.door import Door
from tunstack.daemon.errors import UserError
from tunstack.daemon.host import give_up_root, loop_factory, open_queues
from tunstack.daemon.joined import Joined
from tunstack.daemon.notify import notify
from tunstack.daemon.serve import Daemon, announce, check_access, open_tree
from tunstack.daemon.shares import SHARED, share
from tunstack.daemon.slot import Slot
from tunstack.daemon.worker import HURRY, SIGNALS, Seat, live
from tunstack.device.handover import Handovers

if TYPE_CHECKING:
    from tunstack.daemon.metrics import Metrics
    from tunstack.daemon.tree import Tree

log = logging.getLogger(__name__)

GRACE = 5.0  # beyond the drain timeout: a worker that has not ended then is killed
SECRET_LENGTH = 16  # octets


def supervise(config: ServeConfig, reread: Callable[[], ServeConfig] | None = None) -> None:
    """Serve as `serve` does, with several workers; UserError and OSError likewise."""
    logging.basicConfig(level=config.log_level.upper(), format="tunstack: %(levelname)s: %(message)s", stream=sys.stderr)
    supervisor = Supervisor(config, reread)
    try:
        supervisor.run()
    finally:
        supervisor.close()


class Supervisor:
    """One run. `run`, then `close`."""

    def __init__(self, config: ServeConfig, reread: Callable[[], ServeConfig] | None) -> None:
        self._config = config
        self._reread = reread
        self._factory = loop_factory(config.loop)
        self._congestion = algorithm.prepare(config.congestion)
        self._secret = secrets.token_bytes(SECRET_LENGTH)  # of cookies, initial sequence numbers, timestamps
        self._handovers = Handovers(config.workers)
        self._slots = [Slot(index, queue) for index, queue in enumerate(open_queues(config.interface, config.sysctl, config.workers))]
        self._tree: Tree | None = None
        self._control: Control | None = None
        self._metrics: Metrics | None = None
        self._joined = Joined(config.workers, config.sysctl, self._asked, lambda: time.monotonic() - self._started)
        self._started = time.monotonic()
        self._changed = asyncio.Event()  # something that `_watch` is to look at
        self._is_public = False  # all have served once
        self._signals = 0  # to end
        self._kill_at: float | None = None
        self._failure: Exception | None = None  # why we end

    def run(self) -> None:
        """Serve until told to end."""
        self._prepare()
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # it carries no load: asyncio's own will do
            runner.run(self._begin())
            try:
                while runner.run(self._watch()):
                    for slot in self._slots:
                        if slot.is_due():
                            self._start(slot)
            finally:
                runner.run(self._end())
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Give the interface back."""
        if self._control is not None:
            self._control.close()
        if self._tree is not None:
            self._tree.close()
        for slot in reversed(self._slots):  # the first one has the interface's own affairs to settle
            slot.queue.close()
        self._handovers.close()

    def _prepare(self) -> None:
        """Do what takes the rights that we still have, and give them up."""
        config = self._config
        queue = self._slots[0].queue
        self._tree = open_tree(config)
        if "http" in config.ports:
            import tunstack.daemon.http  # noqa: F401  # for the workers: it may be where only root can read it
        self._control = for_interface(config.control, queue.name)
        if config.metrics is not None:
            from tunstack.daemon.metrics import Metrics

            self._metrics = Metrics(*config.metrics)
        if not queue.steer(self._handovers.steering):
            log.info("the kernel takes no steering program from us: workers hand each other what comes to the wrong one")
        give_up_root(config.user)
        check_access(self._tree, config)

    # Workers.

    def _start(self, slot: Slot) -> None:
        """Fork a worker. No loop runs."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        supervisor = os.getpid()
        gc.freeze()  # what is there is shared with the worker, as long as nobody's collector writes to it
        sys.stdout.flush()
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the worker is to get what is meant for it, and nothing of ours
        try:
            pid = os.fork()
        except OSError as error:
            if not self._is_public:
                raise
            log.error("worker %d cannot be started: %s", slot.index + 1, error.strerror)
            slot.postpone()
            ours.close()
            theirs.close()
            return
        finally:
            if os.getpid() == supervisor:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                gc.unfreeze()
        if not pid:
            status = 1
            try:
                status = self._be_worker(slot, theirs, supervisor)
            finally:
                os._exit(status)
        theirs.close()
        slot.begin(pid, ours)

    def _be_worker(self, slot: Slot, door: socket.socket, supervisor: int) -> int:
        """Serve, in the child; return the exit status."""
        config = self._config
        shares = {name: share(self._joined.limits[name], config.workers) for name in SHARED}
        config = replace(config, sysctl={**config.sysctl, **shares})
        slot.queue.persistent = False  # what a persistent interface gets back it gets from the supervisor
        seat = Seat(self._handovers.of(slot.index), Door(door), self._secret, self._joined.changed, slot.has_served)
        descriptors = {slot.queue.fileno(), door.fileno(), *self._handovers.filenos()}
        if self._tree is not None:
            descriptors.add(self._tree.fileno())

        def serve() -> None:
            with asyncio.Runner(loop_factory=self._factory) as runner:
                runner.run(Daemon(config, slot.queue, self._reread, self._congestion, seat, self._tree).run())

        return live(serve, seat, descriptors, supervisor, config.log_level)

    def _asked(self) -> list[Asked]:
        """Return the workers that serve."""
        return [slot.asked for slot in self._slots if slot.asked is not None]

    def _kill(self, number: int) -> None:
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, number)

    def _on_report(self, slot: Slot) -> None:
        slot.read_reports()
        self._changed.set()

    def _on_child(self) -> None:
        """Some worker has ended."""
        loop = asyncio.get_running_loop()
        for slot in self._slots:
            pid = slot.pid
            if not pid or not slot.reap(loop):
                continue
            self._joined.forget(pid)
            if self._signals or self._failure is not None:
                continue
            if not self._is_public or slot.is_final:
                self._failure = UserError(*slot.why()) if not slot.is_final else OSError("; ".join(slot.why()))
                self._kill(signal.SIGKILL)
            else:
                log.warning("worker %d (pid %d): %s; another takes its place", slot.index + 1, pid, "; ".join(slot.why()))
        self._changed.set()

    # The loop.

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._on_child)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        if self._reread is not None:
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    async def _watch(self) -> bool:
        """Look after the workers until one is to be started (True), or all is over (False)."""
        loop = asyncio.get_running_loop()
        for slot in self._slots:
            slot.listen(loop, partial(self._on_report, slot))
        while True:
            self._changed.clear()
            if self._signals or self._failure is not None:
                if not any(slot.pid for slot in self._slots):
                    return False
                wait = None if self._kill_at is None else self._kill_at - time.monotonic()
                if wait is not None and wait <= 0:
                    log.warning("workers that do not end are killed")
                    self._kill(signal.SIGKILL)
                    wait = self._kill_at = None
            else:
                if any(slot.is_due() for slot in self._slots):
                    return True
                if not self._is_public and all(slot.asked is not None for slot in self._slots):
                    await self._go_public()
                wait = min((slot.wait() for slot in self._slots if not slot.pid), default=None)
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _go_public(self) -> None:
        """All workers serve."""
        self._is_public = True
        if self._control is not None:
            await self._control.start_for(self._joined.call)
        if self._metrics is not None:
            await self._metrics.start(self._joined.read)
        announce(self._slots[0].ready_line)

    async def _end(self) -> None:
        self._kill(signal.SIGKILL)  # none is left, unless we end by an exception
        if self._control is not None:
            self._control.close()
        if self._metrics is not None:
            await self._metrics.close()

    # Signals.

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            notify("STOPPING=1")
            self._kill_at = time.monotonic() + self._config.drain_timeout + GRACE
            self._kill(signal.SIGTERM)
        else:
            self._kill(HURRY)
        self._changed.set()

    def _on_hangup(self) -> None:
        """Have the workers read the file again, and those to come start with it; a mistake in it changes nothing."""
        assert self._reread is not None
        try:
            config = self._reread()
        except UserError as error:
            for message in error.messages:
                log.warning("SIGHUP: %s", message)
            return
        self._config = replace(self._config, keys=config.keys)  # what can change; see Daemon
        self._kill(signal.SIGHUP)
