"""One worker of several: a process that its supervisor has forked (supervisor.py), with a queue of the interface and a door.

It obeys signals: SIGTERM ends it in peace, SIGUSR1 at once, SIGHUP has it read the configuration again. It dies with its supervisor.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tunstack.daemon.door import Door
from tunstack.daemon.errors import UserError
from tunstack.daemon.privileges import end_with
from tunstack.device.handover import Handover

HURRY = signal.SIGUSR1
SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, HURRY))  # those that we or our supervisor handle
STANDARD = frozenset((0, 1, 2))  # descriptors

log = logging.getLogger(__name__)


class InterfaceGone(OSError):
    """Nobody can serve any more."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place among several. `secret` is what all have in common; `changed` are knobs that were set since the program started."""

    handover: Handover
    door: Door
    secret: bytes
    changed: Mapping[str, str]
    has_predecessor: bool  # that has died, and may have sent cookies

    @property
    def index(self) -> int:
        """Its number, from 0."""
        return self.handover.index

    @property
    def count(self) -> int:
        """How many there are."""
        return self.handover.steering.count


def live(serve: Callable[[], None], seat: Seat, descriptors: Collection[int], supervisor: int, log_level: str) -> int:
    """Be a worker, in a process that was just forked with SIGNALS blocked; return its exit status.

    `serve` does the work; `descriptors` are those that it needs.
    """
    try:
        gc.collect()  # what of the supervisor's is garbage closes its descriptors now, or never
        _take_leave(descriptors)
        end_with(supervisor)
        logging.basicConfig(
            level=log_level.upper(), format=f"tunstack: worker {seat.index + 1}: %(levelname)s: %(message)s", stream=sys.stderr, force=True
        )
        serve()
    except UserError as error:
        seat.door.fail(error.messages, False)
        return 2
    except OSError as error:
        seat.door.fail([error.strerror or str(error)], isinstance(error, InterfaceGone))
        return 1
    except BaseException:
        log.exception("this is a mistake in tunstack")
        return 1
    return 0


def _take_leave(descriptors: Collection[int]) -> None:
    """Let go of what is the supervisor's: signals, and all descriptors but ours.

    Each of these is put on /dev/null, not closed: its number stays with the supervisor's object that is still here, and is given to
    nothing of ours that this object could close one day.
    """
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and the supervisor tells us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor not in descriptors and descriptor not in STANDARD and descriptor != null and _is_open(descriptor):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:  # it was that of the list
        return False
    return True
